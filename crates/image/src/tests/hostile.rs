//! What must never come in, and what is said about it.

use super::data::stream;
use super::*;
use contract::Images;
use serde_json::json;

/// A qcow2 header of version 3 with 64 KiB clusters, its tables where they belong.
fn qcow2() -> Vec<u8> {
    let mut file = vec![0u8; 4 << 16];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &16u32.to_be_bytes());
    put(24, &(1u64 << 30).to_be_bytes());
    put(36, &2u32.to_be_bytes());
    put(40, &(3u64 << 16).to_be_bytes());
    put(48, &(1u64 << 16).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    file
}

fn with(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn hostile() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let backing = with(with(with(qcow2(), 8, &512u64.to_be_bytes()), 16, &11u32.to_be_bytes()), 512, b"/etc/shadow");
    let bomb = with(with(qcow2(), 24, &(1u64 << 42).to_be_bytes()), 36, &8192u32.to_be_bytes());
    let iso = with(vec![0; 1 << 20], 32768, b"\x01CD001\x01");
    let json = br#"json:{"driver":"raw","file":{"driver":"file","filename":"/etc/shadow"}}"#;
    let backing_json = with(with(qcow2(), 8, &512u64.to_be_bytes()), 16, &(json.len() as u32).to_be_bytes());
    let data_file = with(qcow2(), 104, &[0x44, 0x41, 0x54, 0x41, 0, 0, 0, 11]);
    let table =
        [&[0x80, 0, 2, 0, 0xee, 0, 0, 0, 1, 0, 0, 0, 0xff, 0, 0, 0][..], &[0; 48], b"\x55\xaaEFI PART"].concat();
    let mut vmdk = with(vec![0; 8192], 0, b"KDMV\x01");
    vmdk[12..20].copy_from_slice(&8u64.to_le_bytes());
    vmdk[28] = 1;
    vmdk[36] = 2;
    let flat = b"# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \"/etc/shadow\" 0\n";
    vec![
        // CVE-2015-5163, CVE-2022-47951, CVE-2024-32498, CVE-2024-40767 and CVE-2024-4467 in their shapes of files.
        ("qcow2", with(backing_json, 512, json), "a backing file ('json:{"),
        ("qcow2", with(data_file.clone(), 112, b"/etc/shadow"), "an external data file"),
        ("raw", with(data_file, 112, b"/etc/shadow"), "a qcow2 file"),
        ("vmdk", with(vmdk, 512, flat), "an extent in another place ('/etc/shadow')"),
        ("vmdk", flat.to_vec(), "a bare descriptor that names other files"),
        ("raw", flat.to_vec(), "a VMDK file"),
        ("qcow2", with(qcow2(), 24, &u64::MAX.to_be_bytes()), "no disk has more than 2^63 - 1"),
        ("qcow2", with(qcow2(), 446, &table), "begins with a partition table as well"),
        ("qcow2", with(qcow2(), 32768, b"\x01CD001\x01"), "several formats at once"),
        ("iso", with(qcow2(), 32768, b"\x01CD001\x01"), "several formats at once"),
        ("raw", b"\x1f\x8b\x08\x00\x1f\x8b\x08\x00".to_vec(), "a gzip file: unpack it"),
        ("ploop", vec![7; 100_000], "no image format that is known"),
        ("qcow2", backing, "a backing file ('/etc/shadow')"),
        ("qcow2", with(qcow2(), 72, &4u64.to_be_bytes()), "an external data file"),
        ("qcow2", bomb, "unfolds to a disk of 4 TiB; at most 1 TiB"),
        ("qcow2", qcow2()[..3 << 16].to_vec(), "truncated"),
        ("qcow2", vec![7; 100_000], "no image format that is known"),
        ("raw", with(vec![0; 1 << 20], 0, b"KDMV"), "a VMDK file: set disk_format to 'vmdk'"),
        ("raw", b"# Disk DescriptorFile\nversion=1\n".to_vec(), "a VMDK file"),
        ("raw", iso, "an ISO 9660/UDF file: set disk_format to 'iso'"),
        ("raw", qcow2(), "a qcow2 file: set disk_format to 'qcow2'"),
        ("raw", b"\x1f\x8b\x08\x00packed".to_vec(), "a gzip file: unpack it"),
    ]
}

async fn declared(world: &World, disk_format: &str) -> String {
    world.image(OWNER, json!({"disk_format": disk_format, "container_format": "bare"})).await
}

#[tokio::test]
async fn what_is_not_what_it_says_is_refused_with_the_reason_and_no_bytes_stay() {
    let world = World::new().await;
    for (disk_format, file, because) in hostile() {
        let id = declared(&world, disk_format).await;
        world.upload(OWNER, &id, stream(&file, 10_000, false)).await.refuses(415, because);
        assert_eq!(world.files(), Vec::<String>::new(), "{because}");
        let view = world.show(&id).await;
        assert_eq!((&view["status"], &view["size"]), (&json!("queued"), &Value::Null), "{because}");
    }
    let id = declared(&world, "qcow2").await;
    world.upload(OWNER, &id, qcow2()).await.expect(204);
    assert_eq!(world.show(&id).await["virtual_size"], 1 << 30);
}

#[tokio::test]
async fn without_enforcement_they_are_stored_and_quarantined() {
    let world = World::with(|options| options.format_enforcement = false).await;
    for (disk_format, file, because) in hostile() {
        let id = declared(&world, disk_format).await;
        world.upload(OWNER, &id, stream(&file, 10_000, false)).await.expect(204);
        let view = world.show(&id).await;
        assert_eq!((&view["status"], &view["virtual_size"]), (&json!("active"), &Value::Null), "{because}");
        assert_eq!(world.get(OWNER, &format!("/v2/images/{id}/file")).await.expect(200).bytes, file);
        let (service, image) = (world.service.clone(), id.clone());
        let info = world.store.read(move |reader| service.describe(reader, &image.as_str().into())).await.unwrap();
        let reason = info.unwrap().quarantined.expect("quarantined");
        assert!(reason.contains(because), "{reason:?} lacks {because:?}");
        world.service.open_file(&id.as_str().into()).await.expect_err("no agent gets quarantined bytes");
    }
    let id = declared(&world, "qcow2").await;
    world.upload(OWNER, &id, qcow2()).await.expect(204);
    world.service.open_file(&id.as_str().into()).await.expect("good bytes are not quarantined");
}

#[tokio::test]
async fn odd_requests_get_a_clear_fault() {
    let world = World::new().await;
    let json_type = [("content-type", "application/json")];
    let post = async |body: String| world.call(OWNER, "POST", "/v2/images", &json_type, Body::from(body)).await;
    post("{".to_owned()).await.refuses(400, "not valid JSON");
    post("7".to_owned()).await.expect(400);
    post(format!("{{\"a\": {}1{}}}", "[".repeat(100), "]".repeat(100))).await.refuses(400, "nested");
    post("{\"name\": \"a\\u0000b\"}".to_owned()).await.refuses(400, "U+0000");
    post(format!("{{\"name\": \"{}\"}}", "x".repeat(10 << 20))).await.expect(413);
    let id = world.raw_image(OWNER).await;
    world.call(OWNER, "PUT", &format!("/v2/images/{id}/tags/a%00b"), &[], Body::empty()).await.expect(400);
    world.get(OWNER, "/v2/images?name=a%00b").await.expect(400);
    world.call(OWNER, "PUT", "/v2/images", &[], Body::empty()).await.expect(405);
    world.get(OWNER, "/v2/nothing").await.expect(404);
    world.get("broken token", "/v2/images").await.expect(401);
    let unknown = world.image(OWNER, json!({"never_heard_of": "kept"})).await;
    assert_eq!(world.show(&unknown).await["never_heard_of"], "kept", "unknown fields are custom properties");
}
