//! Bytes: up, down, broken off, staged, quota, and after the death of the process.

use super::*;
use crate::document::Image;
use contract::Images;
use futures::StreamExt;
use md5::{Digest, Md5};
use serde_json::json;
use sha2::Sha512;
use std::io::Read;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 % 251) as u8).collect()
}

/// A body in pieces; `broken` ends it with an error, as a cut connection does.
pub fn stream(bytes: &[u8], piece: usize, broken: bool) -> Body {
    let mut pieces: Vec<std::io::Result<Bytes>> =
        bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    if broken {
        pieces.push(Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
    }
    Body::from_stream(futures::stream::iter(pieces))
}

#[tokio::test]
async fn what_was_uploaded_comes_back_with_its_hashes() {
    let world = World::new().await;
    let id = world.raw_image(OWNER).await;
    let data = bytes(3_000_001);
    let file = format!("/v2/images/{id}/file");
    world.get(OWNER, &file).await.expect(204);
    world.upload(OWNER, &id, stream(&data, 64 * 1024, false)).await.expect(204);
    let view = world.show(&id).await;
    assert_eq!(view["status"], "active");
    assert_eq!((&view["size"], &view["virtual_size"]), (&json!(3_000_001), &json!(3_000_001)));
    assert_eq!(view["checksum"], hex(&Md5::digest(&data)));
    assert_eq!(
        (&view["os_hash_algo"], &view["os_hash_value"]),
        (&json!("sha512"), &json!(hex(&Sha512::digest(&data))))
    );
    let down = world.get(OWNER, &file).await.expect(200);
    assert_eq!(down.bytes, data);
    assert_eq!(down.header("content-md5"), view["checksum"]);
    assert_eq!(down.header("content-length"), "3000001");
    assert_eq!(down.header("content-type"), "application/octet-stream");
    assert_eq!(world.files().len(), 1);
    world.upload(OWNER, &id, "again").await.refuses(409, "from active to saving is not allowed");
    let mut read = Vec::new();
    world.service.open_file(&id.as_str().into()).await.unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read, data);
}

#[tokio::test]
async fn a_part_is_downloaded_by_range() {
    let world = World::new().await;
    let id = world.raw_image(OWNER).await;
    world.upload(OWNER, &id, "0123456789").await.expect(204);
    let file = format!("/v2/images/{id}/file");
    for (range, part, content_range) in [
        ("bytes=0-4", "01234", "bytes 0-4/10"),
        ("bytes=5-", "56789", "bytes 5-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=8-100", "89", "bytes 8-9/10"),
        ("bytes=-100", "0123456789", "bytes 0-9/10"),
    ] {
        let down = world.call(OWNER, "GET", &file, &[("range", range)], Body::empty()).await.expect(206);
        assert_eq!((down.text().as_str(), down.header("content-range")), (part, content_range), "{range}");
        assert_eq!(down.header("content-length"), part.len().to_string());
    }
    for range in ["bytes=10-", "bytes=5-4", "bytes=x-", "bytes=-0", "bytes=99999999999999999999-"] {
        world.call(OWNER, "GET", &file, &[("range", range)], Body::empty()).await.expect(416);
    }
    world.call(OWNER, "GET", &file, &[("range", "lines=1-2")], Body::empty()).await.expect(200);
}

#[tokio::test]
async fn a_broken_upload_leaves_no_bytes_and_can_be_repeated() {
    let world = World::new().await;
    let id = world.raw_image(OWNER).await;
    world.upload(OWNER, &id, stream(&bytes(500_000), 10_000, true)).await.refuses(400, "broke off");
    assert_eq!(world.files(), Vec::<String>::new());
    let view = world.show(&id).await;
    assert_eq!((&view["status"], &view["size"], &view["checksum"]), (&json!("queued"), &Value::Null, &Value::Null));
    world.upload(OWNER, &id, "whole").await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_leaves_no_bytes() {
    use tokio::io::AsyncWriteExt;
    let world = World::new().await;
    let id = world.raw_image(OWNER).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = world.gateway.clone();
    let app = axum::Router::new().fallback(move |request: http::Request<Body>| {
        let gateway = gateway.clone();
        async move { gateway.handle(request).await }
    });
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    for head in ["content-length: 1000000\r\n\r\n", "transfer-encoding: chunked\r\n\r\n10000\r\n"] {
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!(
            "PUT /image/v2/images/{id}/file HTTP/1.1\r\nhost: x\r\nx-auth-token: {OWNER}\r\n\
             content-type: application/octet-stream\r\n{head}"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        client.write_all(&bytes(50_000)).await.unwrap();
        wait_for("the upload to begin", async || world.show(&id).await["status"] == "saving").await;
        assert_eq!(world.files().len(), 1);
        drop(client);
        wait_for("the image to be queued again", async || world.show(&id).await["status"] == "queued").await;
        wait_for("the bytes to go", async || world.files().is_empty()).await;
    }
    server.abort();
}

#[tokio::test]
async fn a_wrong_size_or_checksum_is_refused() {
    use base64::Engine;
    let world = World::new().await;
    let id = world.raw_image(OWNER).await;
    let path = format!("/v2/images/{id}/file");
    let right = base64::prelude::BASE64_STANDARD.encode(Md5::digest(b"whole"));
    let wrong = base64::prelude::BASE64_STANDARD.encode(Md5::digest(b"other"));
    let sha512 = format!("sha-512=:{}:", base64::prelude::BASE64_STANDARD.encode(Sha512::digest(b"other")));
    for (header, because) in [
        (("x-openstack-image-size", "6"), "5 bytes, but 6 were announced"),
        (("x-openstack-image-size", "some"), "Invalid or missing image size"),
        (("content-md5", wrong.as_str()), "damaged on its way"),
        (("content-md5", hex(&Md5::digest(b"other")).as_str()), "damaged on its way"),
        (("content-digest", sha512.as_str()), "The SHA-512 of the uploaded data"),
        (("content-md5", "???"), "does not hold a digest"),
    ] {
        let headers = [("content-type", "application/octet-stream"), header];
        world.call(OWNER, "PUT", &path, &headers, Body::from("whole")).await.refuses(400, because);
        assert_eq!(world.files(), Vec::<String>::new());
        assert_eq!(world.show(&id).await["status"], "queued");
    }
    let headers = [("content-type", "application/octet-stream"), ("content-md5", right.as_str())];
    world.call(OWNER, "PUT", &path, &headers, Body::from("whole")).await.expect(204);
}

#[tokio::test]
async fn uploads_need_their_content_type_and_formats() {
    let world = World::new().await;
    let id = world.image(OWNER, json!({"disk_format": "raw"})).await;
    world.upload(OWNER, &id, "x").await.refuses(400, "container_format must be set");
    let id = world.raw_image(OWNER).await;
    let path = format!("/v2/images/{id}/file");
    let headers = [("content-type", "application/json")];
    world.call(OWNER, "PUT", &path, &headers, Body::from("x")).await.refuses(415, "application/octet-stream");
    world.upload(OWNER, "..%2F..%2Fetc", "x").await.expect(404);
    world.upload(OWNER, "6a0d1f9e-8b1e-4c4f-9a55-0d6c0c1b7d99", "x").await.expect(404);
    assert_eq!(world.files(), Vec::<String>::new());
}

#[tokio::test]
async fn size_limit_and_quota_answer_413() {
    let world = World::with(|options| {
        options.size_limit_bytes = 3 << 20;
        options.quota.image_size_total_mib = Some(4);
    })
    .await;
    let id = world.raw_image(OWNER).await;
    let path = format!("/v2/images/{id}/file");
    let large = bytes((3 << 20) + 1);
    world.upload(OWNER, &id, stream(&large, 100_000, false)).await.refuses(413, "too large");
    let length = large.len().to_string();
    let headers = [("content-type", "application/octet-stream"), ("content-length", length.as_str())];
    world.call(OWNER, "PUT", &path, &headers, stream(&large, 100_000, false)).await.refuses(413, "too large");
    assert_eq!((world.files().len(), world.show(&id).await["status"].as_str()), (0, Some("queued")));
    world.upload(OWNER, &id, stream(&bytes(3 << 20), 100_000, false)).await.expect(204);
    let second = world.raw_image(OWNER).await;
    let two = bytes(2 << 20);
    world.upload(OWNER, &second, stream(&two, 100_000, false)).await.refuses(413, "image_size_total");
    let path = format!("/v2/images/{second}/file");
    let headers = [("content-type", "application/octet-stream"), ("content-length", "2097152")];
    world.call(OWNER, "PUT", &path, &headers, stream(&two, 100_000, false)).await.refuses(413, "image_size_total");
    assert_eq!((world.files().len(), world.show(&second).await["status"].as_str()), (1, Some("queued")));
    world.upload(OWNER, &second, stream(&bytes(1 << 20), 100_000, false)).await.expect(204);
    world.delete(OWNER, &format!("/v2/images/{id}")).await.expect(204);
    let third = world.raw_image(OWNER).await;
    world.upload(OWNER, &third, stream(&bytes(3 << 20), 100_000, false)).await.expect(204);
}

#[tokio::test]
async fn an_image_deleted_during_its_upload_leaves_no_bytes() {
    let world = World::new().await;
    let id = world.raw_image(OWNER).await;
    let (mut more, chunks) = futures::channel::mpsc::channel::<std::io::Result<Bytes>>(4);
    let uploading = world.upload(OWNER, &id, Body::from_stream(chunks));
    let meanwhile = async {
        more.try_send(Ok(Bytes::from_static(b"first"))).unwrap();
        wait_for("the upload to begin", async || world.show(&id).await["status"] == "saving").await;
        world.upload(OWNER, &id, "second upload").await.refuses(409, "from saving to saving");
        world.delete(OWNER, &format!("/v2/images/{id}")).await.expect(204);
        drop(more);
    };
    let (uploaded, ()) = futures::join!(uploading, meanwhile);
    uploaded.refuses(410, "deleted during the upload");
    assert_eq!(world.files(), Vec::<String>::new());
}

#[tokio::test]
async fn staged_bytes_are_imported_or_refused() {
    let world = World::new().await;
    let id = world.image(OWNER, json!({"name": "later"})).await;
    let path = format!("/v2/images/{id}");
    let headers = [("content-type", "application/octet-stream")];
    let import = json!({"method": {"name": "glance-direct"}});
    let staged =
        async |data: &'static str| world.call(OWNER, "PUT", &format!("{path}/stage"), &headers, Body::from(data)).await;
    world.send(OWNER, "POST", &format!("{path}/import"), import.clone()).await.refuses(409, "'container_format' needs");
    staged("qcow2 or raw?").await.expect(204);
    let view = world.show(&id).await;
    assert_eq!((&view["status"], &view["size"], &view["checksum"]), (&json!("uploading"), &json!(13), &Value::Null));
    staged("twice").await.refuses(409, "from uploading to uploading");
    world.get(OWNER, &format!("{path}/file")).await.expect(204);
    world.send(OWNER, "POST", &format!("{path}/import"), json!({})).await.refuses(400, "requires a 'method'");
    let odd = json!({"method": {"name": "copy-image"}});
    world.send(OWNER, "POST", &format!("{path}/import"), odd).await.refuses(400, "Unknown import method");
    let id2 = world.image(OWNER, json!({"disk_format": "qcow2", "container_format": "bare"})).await;
    let path2 = format!("/v2/images/{id2}");
    world.send(OWNER, "POST", &format!("{path2}/import"), import.clone()).await.refuses(409, "needs to be staged");
    world.call(OWNER, "PUT", &format!("{path2}/stage"), &headers, Body::from("not qcow2")).await.expect(204);
    assert_eq!(world.files().len(), 2);
    world.send(OWNER, "POST", &format!("{path2}/import"), import.clone()).await.refuses(415, "disk_format is 'qcow2'");
    assert_eq!((world.show(&id2).await["status"].as_str(), world.files().len()), (Some("queued"), 1));
    // The first has no formats yet, and a staged image may not get them any more, as in Glance.
    world.send(OWNER, "POST", &format!("{path}/import"), import.clone()).await.expect(409);
    let id3 = world.raw_image(OWNER).await;
    let path3 = format!("/v2/images/{id3}");
    world.call(OWNER, "PUT", &format!("{path3}/stage"), &headers, Body::from("staged")).await.expect(204);
    world.send(OWNER, "POST", &format!("{path3}/import"), import.clone()).await.expect(202);
    let view = world.show(&id3).await;
    assert_eq!((&view["status"], &view["checksum"]), (&json!("active"), &json!(hex(&Md5::digest(b"staged")))));
    assert_eq!(world.get(OWNER, &format!("{path3}/file")).await.expect(200).text(), "staged");
    let tasks = world.get(OWNER, &format!("{path3}/tasks")).await.expect(200).json();
    assert_eq!((&tasks["tasks"][0]["status"], &tasks["tasks"][0]["image_id"]), (&json!("success"), &json!(id3)));
    assert_eq!(tasks["tasks"][0]["input"]["import_req"], import);
    let refused = world.get(OWNER, &format!("{path2}/tasks")).await.expect(200).json();
    assert_eq!(refused["tasks"][0]["status"], "failure");
    assert!(refused["tasks"][0]["message"].as_str().unwrap().contains("disk_format is 'qcow2'"), "{refused}");
    world.send(OWNER, "POST", &format!("{path3}/import"), import).await.refuses(409, "status active");
}

/// What `kill -9` leaves: a document that waits for a transfer, and a file that nobody holds.
#[test]
fn after_the_death_of_the_process_nothing_is_stuck_and_nothing_is_left() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("images");
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = runtime();
    let (store, id, kept) = first.block_on(async {
        let world = World::with(|options| options.folder = folder.clone()).await;
        let id = world.raw_image(OWNER).await;
        let kept = world.raw_image(OWNER).await;
        world.upload(OWNER, &kept, "kept").await.expect(204);
        std::fs::write(folder.join("6a0d1f9e-8b1e-4c4f-9a55-0d6c0c1b7d01.dead"), "x").unwrap();
        std::fs::write(folder.join("not ours"), "x").unwrap();
        let store = world.store.clone();
        let forever = Body::from_stream(
            futures::stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"half")) })
                .chain(futures::stream::pending()),
        );
        let upload_id = id.clone();
        let world = Arc::new(world);
        let uploading = world.clone();
        tokio::spawn(async move { uploading.upload(OWNER, &upload_id, forever).await });
        wait_for("the upload to begin", async || world.show(&id).await["status"] == "saving").await;
        world.sweep().await;
        assert_eq!(world.show(&id).await["status"], "saving", "a living transfer is left alone");
        assert!(world.files().iter().any(|name| name.starts_with(".upload-")));
        (store, id, kept)
    });
    first.shutdown_timeout(std::time::Duration::from_secs(10));
    let second = runtime();
    second.block_on(async {
        assert_eq!(store.get::<Image>(&id).await.unwrap().unwrap().status.as_str(), "saving");
        let world = World::over(store, Options::new(&folder), temporary);
        world.sweep().await;
        assert_eq!(world.show(&id).await["status"], "queued");
        let names = world.files();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names.contains(&"not ours".to_owned()), "what does not follow our naming is not ours to remove");
        world.upload(OWNER, &id, "again").await.expect(204);
        assert_eq!(world.get(OWNER, &format!("/v2/images/{kept}/file")).await.text(), "kept");
    });
}

/// The bytes that never end, and the request that waits for them.
fn endless() -> Body {
    let first = futures::stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"half")) });
    Body::from_stream(first.chain(futures::stream::pending()))
}

async fn explained(world: &World, id: &str) -> serde_json::Value {
    use contract::{Asking, Explain};
    let (service, id) = (world.service.clone(), id.to_owned());
    let asking = Asking { project_id: Some("red".into()), admin: false };
    let found = world.store.read(move |reader| service.explain(reader, &asking, "image", &id)).await.unwrap();
    serde_json::to_value(found.unwrap()).unwrap()
}

#[tokio::test]
async fn an_upload_that_never_ends_is_ended_at_its_deadline_and_says_why() {
    let world = World::with(|options| options.deadlines.set("image", 1).unwrap()).await;
    let id = world.raw_image(OWNER).await;
    world.upload(OWNER, &id, endless()).await.refuses(408, "Taking in the image took longer than 1 second");
    assert_eq!(world.show(&id).await["status"], "queued");
    let told = explained(&world, &id).await;
    let why = told["why"].as_str().unwrap();
    assert!(why.contains("it waits for the client that sends its bytes. Upload its bytes again."), "{why}");
    assert_eq!(world.files().len(), 0);
    world.upload(OWNER, &id, "again").await.expect(204);
    assert_eq!(explained(&world, &id).await["why"], "Its bytes are there and were accepted.");
}

/// The time of a transfer is counted by whoever comes after a crash, and also where its process hangs.
#[tokio::test]
async fn a_transfer_past_its_deadline_is_waited_for_no_longer_though_its_process_lives() {
    let world = Arc::new(World::new().await);
    let id = world.raw_image(OWNER).await;
    let (uploading, image) = (world.clone(), id.clone());
    let upload = tokio::spawn(async move { uploading.upload(OWNER, &image, endless()).await });
    wait_for("the upload to begin", async || world.show(&id).await["status"] == "saving").await;
    let told = explained(&world, &id).await;
    assert_eq!((&told["waiting_on"], &told["attempts"]), (&json!("the client that sends its bytes"), &json!(0)));
    assert!(told["since"].is_string() && told["deadline"].is_string(), "{told}");
    let late = id.clone();
    let cause = store::Cause::new("test", "", "test");
    let aged = world.store.write(cause, move |tx| {
        let since = tx.now().plus_s(-24 * 3600);
        Ok(tx.modify::<Image>(&late, |image| image.transfer_since = Some(since))?)
    });
    aged.await.unwrap();
    world.sweep().await;
    assert_eq!(world.show(&id).await["status"], "queued");
    let told = explained(&world, &id).await;
    assert!(told["why"].as_str().unwrap().contains("took longer than 24 hours"), "{told}");
    // Another upload brings the bytes, and explains that it is the second.
    let (uploading, image) = (world.clone(), id.clone());
    let second = tokio::spawn(async move { uploading.upload(OWNER, &image, endless()).await });
    wait_for("the second upload to begin", async || world.show(&id).await["status"] == "saving").await;
    let told = explained(&world, &id).await;
    assert_eq!(told["attempts"], 1);
    assert!(told["last_error"].as_str().unwrap().contains("took longer than 24 hours"), "{told}");
    upload.abort();
    second.abort();
}

#[tokio::test]
async fn compute_sees_what_it_may_boot() {
    let world = World::new().await;
    let id = world.raw_image(OWNER).await;
    world.upload(OWNER, &id, "disk").await.expect(204);
    let (service, image) = (world.service.clone(), id.clone());
    let tokens = PlainTokens;
    let (owner, other) = (tokens.verify(OWNER).await.unwrap(), tokens.verify(OTHER).await.unwrap());
    let located = world.store.read(move |reader| {
        let own = service.locate(reader, &owner, &image.as_str().into())?;
        let foreign = service.locate(reader, &other, &image.as_str().into()).map(|_| ());
        let described = service.describe(reader, &image.as_str().into())?;
        Ok((own, foreign, described))
    });
    let (own, foreign, described) = located.await.unwrap();
    assert_eq!((own.active, own.size_bytes, own.virtual_size_bytes, own.quarantined), (true, 4, 4, None));
    assert_eq!(own.disk_format, Some(agent_api::DiskFormat::Raw));
    assert_eq!(own.sha512, hex(&Sha512::digest(b"disk")));
    assert_eq!(foreign.unwrap_err().kind, base::FaultKind::NotFound);
    assert!(described.is_some());
}

/// The moment between the file's whole name and the commit that names it.
#[tokio::test]
async fn a_process_that_died_before_its_last_commit_leaves_nothing() {
    let world = World::new().await;
    let id = world.raw_image(OWNER).await;
    let dying = id.clone();
    let cause = store::Cause::new("test", "", "test");
    let announced = world.store.write(cause, move |tx| {
        Ok(tx.modify::<Image>(&dying, |image| {
            image.status = crate::document::Status::Saving;
            image.transfer = Some("dead".to_owned());
        })?)
    });
    announced.await.unwrap();
    let whole = world.folder.join(format!("{id}.dead"));
    std::fs::write(&whole, "whole").unwrap();
    let held = std::fs::File::open(&whole).unwrap();
    held.lock().unwrap();
    world.sweep().await;
    assert_eq!(world.show(&id).await["status"], "saving", "its process lives");
    drop(held);
    world.sweep().await;
    assert_eq!((world.show(&id).await["status"].as_str(), world.files().len()), (Some("queued"), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_uploads_at_once_one_wins_and_quota_is_exact() {
    let world = Arc::new(World::with(|options| options.quota.image_count_total = Some(5)).await);
    let creates = (0..40).map(|_| {
        let world = world.clone();
        tokio::spawn(async move {
            let body = json!({"disk_format": "raw", "container_format": "bare"});
            world.send(OWNER, "POST", "/v2/images", body).await
        })
    });
    let answers: Vec<Answer> = futures::future::join_all(creates).await.into_iter().map(|a| a.unwrap()).collect();
    let created: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert_eq!(created.len(), 5);
    assert!(answers.iter().all(|answer| matches!(answer.status, 201 | 413)));
    let id = created[0].json()["id"].as_str().unwrap().to_owned();
    let uploads = (0..20).map(|n: u8| {
        let (world, id) = (world.clone(), id.clone());
        tokio::spawn(async move { (n, world.upload(OWNER, &id, stream(&[n; 50_000], 1_000, false)).await.status) })
    });
    let outcomes: Vec<(u8, u16)> = futures::future::join_all(uploads).await.into_iter().map(|a| a.unwrap()).collect();
    let won: Vec<u8> = outcomes.iter().filter(|(_, status)| *status == 204).map(|(n, _)| *n).collect();
    assert_eq!(won.len(), 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|(_, status)| matches!(status, 204 | 409)), "{outcomes:?}");
    assert_eq!(world.get(OWNER, &format!("/v2/images/{id}/file")).await.bytes, vec![won[0]; 50_000]);
    assert_eq!(world.files().len(), 1);
}
