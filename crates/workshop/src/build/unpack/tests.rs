//! Crafted tarballs: bombs, names and links that lead out, special files; packed in every way.

use super::*;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

/// One member, as the oldest format has it.
struct Member<'a> {
    name: &'a str,
    kind: u8,
    link: &'a str,
    mode: u32,
    content: &'a [u8],
}

const PLAIN: Member<'static> = Member { name: "plain", kind: b'0', link: "", mode: 0o644, content: b"" };

fn member(of: &Member<'_>) -> Vec<u8> {
    let mut head = [0; 512];
    head[..of.name.len()].copy_from_slice(of.name.as_bytes());
    head[100..108].copy_from_slice(format!("{:07o}\0", of.mode).as_bytes());
    head[108..116].copy_from_slice(b"0002322\0");
    head[116..124].copy_from_slice(b"0004451\0");
    head[124..136].copy_from_slice(format!("{:011o}\0", of.content.len()).as_bytes());
    head[136..148].copy_from_slice(b"00000000000\0");
    head[156] = of.kind;
    head[157..157 + of.link.len()].copy_from_slice(of.link.as_bytes());
    head[257..265].copy_from_slice(b"ustar\x0000");
    // A device's numbers: 1, 3.
    head[329..345].copy_from_slice(b"0000001\x000000003\0");
    summed(head, of.content)
}

fn summed(mut head: [u8; 512], content: &[u8]) -> Vec<u8> {
    head[148..156].fill(b' ');
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = head.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// The line of a PAX header: its length counts itself.
fn pax(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..5).map(|digits| rest + digits).find(|all| all.to_string().len() + rest == *all).unwrap();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Option<Bench> {
        testkit::require("root").then(|| Bench(tempfile::tempdir().unwrap()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Unpacks into `tree`, which is new.
    fn unpack_within(&self, bytes: &[u8], most: Most) -> std::result::Result<(), String> {
        for folder in ["tree", "jail"] {
            let _ = fs::remove_dir_all(self.path(folder));
            fs::create_dir(self.path(folder)).unwrap();
        }
        fs::write(self.path("tarball"), bytes).unwrap();
        let done = unpack(&self.path("tarball"), &self.path("tree"), &self.path("jail"), most);
        assert_eq!(fs::read_dir(self.path("jail")).unwrap().count(), 0);
        done.map_err(|error| error.to_string())
    }

    fn unpack(&self, members: &[Member<'_>]) -> std::result::Result<(), String> {
        self.unpack_within(&tarball(members), Most { bytes: 16 << 20, members: 100 })
    }

    fn packed(&self, program: &str, bytes: &[u8]) -> Vec<u8> {
        fs::write(self.path("loose"), bytes).unwrap();
        let done = Command::new(program).arg("-c").stdin(File::open(self.path("loose")).unwrap()).output().unwrap();
        done.stdout
    }

    fn lines(&self, name: &str) -> String {
        fs::read_to_string(self.path("tree").join(name)).unwrap()
    }
}

fn tarball(members: &[Member<'_>]) -> Vec<u8> {
    let mut bytes: Vec<u8> = members.iter().flat_map(member).collect();
    bytes.extend([0; 1024]);
    bytes
}

const PROGRAMS: [&str; 4] = ["gzip", "xz", "zstd", "bzip2"];

#[test]
fn every_packing_is_undone_and_a_bomb_is_not() {
    let Some(bench) = Bench::new() else { return };
    let small = tarball(&[Member { content: b"hello", ..PLAIN }]);
    // 64 MiB that are packed into some KiB.
    let bomb = tarball(&[Member { content: &vec![0; 64 << 20], ..PLAIN }]);
    let most = Most { bytes: 1 << 20, members: 10 };
    assert!(bench.unpack_within(&bomb, most).unwrap_err().contains("unfolds to more than 1048576 bytes"));
    let there = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    for program in PROGRAMS.into_iter().filter(there) {
        bench.unpack_within(&bench.packed(program, &small), most).unwrap();
        assert_eq!(bench.lines("plain"), "hello", "{program}");
        let refusal = bench.unpack_within(&bench.packed(program, &bomb), most).unwrap_err();
        assert!(refusal.contains("unfolds to more than 1048576 bytes"), "{program}: {refusal}");
        let twice = bench.packed("gzip", &bench.packed(program, &small));
        let refusal = bench.unpack_within(&twice, most).unwrap_err();
        assert!(refusal.contains("packed twice"), "{program}: {refusal}");
        let mut broken = bench.packed(program, &bomb);
        broken.truncate(broken.len() / 2);
        let refusal = bench.unpack_within(&broken, Most { bytes: 1 << 30, members: 10 }).unwrap_err();
        assert!(refusal.starts_with(program), "{program}: {refusal}");
    }
    assert!(bench.unpack_within(b"no tarball", most).unwrap_err().contains("tar failed with status 2"));
}

#[test]
fn members_are_counted_and_a_file_of_holes_has_its_whole_length() {
    let Some(bench) = Bench::new() else { return };
    let names: Vec<String> = (0..200).map(|n| format!("file{n}\nwith two lines")).collect();
    let many: Vec<Member<'_>> = names.iter().map(|name| Member { name, ..PLAIN }).collect();
    assert!(bench.unpack(&many[..100]).is_ok());
    assert!(bench.unpack(&many).unwrap_err().contains("more than 100 files"));
    // Folders that a name implies are made as well, a hundred levels deep if it says so.
    let deep: Vec<String> = (0..3).map(|n| format!("{n}/{}f", "a/".repeat(40))).collect();
    let deep: Vec<Member<'_>> = deep.iter().map(|name| Member { name, ..PLAIN }).collect();
    assert!(bench.unpack(&deep[..2]).is_ok());
    assert!(bench.unpack(&deep).unwrap_err().contains("more than 100 files"));
    // GNU's old format of sparse files: no data, and a length of 8 GiB - 1 or of 8 MiB.
    let sparse = |length: u64| {
        let mut head = [0; 512];
        head.copy_from_slice(&member(&Member { name: "sparse", kind: b'S', ..PLAIN })[..512]);
        head[257..265].copy_from_slice(b"ustar  \0");
        head[329..345].fill(0);
        head[386..410].copy_from_slice(format!("{length:011o}\x0000000000000\0").as_bytes());
        head[483..495].copy_from_slice(format!("{length:011o}\0").as_bytes());
        [summed(head, b""), vec![0; 1024]].concat()
    };
    let most = Most { bytes: 16 << 20, members: 10 };
    bench.unpack_within(&sparse(8 << 20), most).unwrap();
    let kept = fs::metadata(bench.path("tree/sparse")).unwrap();
    assert!(kept.len() == 8 << 20 && kept.blocks() < 100);
    let refusal = bench.unpack_within(&sparse((8 << 30) - 1), most).unwrap_err();
    assert!(refusal.contains("unfolds to more") || refusal.contains("File too large"), "{refusal}");
}

#[test]
fn names_that_lead_out_stay_within_or_are_refused() {
    let Some(bench) = Bench::new() else { return };
    let outside = bench.path("outside");
    fs::write(&outside, "untouched").unwrap();
    let absolute = outside.display().to_string();
    bench.unpack(&[Member { name: &absolute, content: b"overwritten", ..PLAIN }]).unwrap();
    assert_eq!(bench.lines(absolute.trim_start_matches('/')), "overwritten");
    for name in ["../outside", "a/../../outside", "a/../b"] {
        let refusal = bench.unpack(&[Member { name, content: b"overwritten", ..PLAIN }]).unwrap_err();
        assert!(refusal.contains("Member name contains '..'"), "{refusal}");
    }
    let folder = bench.0.path().display().to_string();
    for (kind, link) in [(b'2', ".."), (b'2', folder.as_str()), (b'1', ".."), (b'1', folder.as_str())] {
        let through =
            [Member { name: "way", kind, link, ..PLAIN }, Member { name: "way/outside", content: b"x", ..PLAIN }];
        assert!(bench.unpack(&through).is_err(), "{link}");
    }
    // Two ways over each other, and a file after a link of its name: one of both stays, and nothing is written through.
    let pair = [
        Member { name: "a", kind: b'2', link: ".", ..PLAIN },
        Member { name: "a/b", kind: b'2', link: "..", ..PLAIN },
        Member { name: "a/b/outside", content: b"x", ..PLAIN },
    ];
    assert!(bench.unpack(&pair).is_err());
    let replaced = [
        Member { name: "it", kind: b'2', link: "../outside", ..PLAIN },
        Member { name: "it", content: b"within", ..PLAIN },
    ];
    bench.unpack(&replaced).unwrap();
    for link in [absolute.as_str(), "../outside", "/usr/bin/tar", "/etc/passwd"] {
        assert!(bench.unpack(&[Member { name: "hard", kind: b'1', link, ..PLAIN }]).is_err(), "{link}");
    }
    // A hard link to a link is one more link, and nothing is written through it.
    let linked = [
        Member { name: "soft", kind: b'2', link: &absolute, ..PLAIN },
        Member { name: "hard", kind: b'1', link: "soft", ..PLAIN },
        Member { name: "hard", content: b"within", ..PLAIN },
    ];
    bench.unpack(&linked).unwrap();
    assert!(fs::symlink_metadata(bench.path("tree/soft")).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
}

#[test]
fn special_files_owners_and_modes_are_as_they_were() {
    let Some(bench) = Bench::new() else { return };
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let attributes = [
        pax("SCHILY.xattr.security.capability", &capability),
        pax("SCHILY.xattr.user.mark", b"kept"),
        pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
    ];
    let attributes = attributes.concat();
    let members = [
        Member { name: "null", kind: b'3', mode: 0o666, ..PLAIN },
        // Through a device, content would go where the device leads: the file takes its place.
        Member { name: "zero", kind: b'3', ..PLAIN },
        Member { name: "zero", content: b"file", ..PLAIN },
        Member { name: "pipe", kind: b'6', ..PLAIN },
        Member { name: "su", mode: 0o4755, content: b"x", ..PLAIN },
        Member { name: "header", kind: b'x', content: &attributes, ..PLAIN },
        Member { name: "ping", mode: 0o755, content: b"x", ..PLAIN },
    ];
    bench.unpack(&members).unwrap();
    let of = |name: &str| fs::symlink_metadata(bench.path("tree").join(name)).unwrap();
    assert!(of("null").file_type().is_char_device());
    assert_eq!(of("null").rdev(), nix::sys::stat::makedev(1, 3));
    assert_eq!(bench.lines("zero"), "file");
    assert!(of("pipe").file_type().is_fifo());
    assert_eq!((of("su").mode() & 0o7777, of("su").uid(), of("su").gid()), (0o4755, 0o2322, 0o4451));
    // The capability is kept, an attribute of the host's own file systems is not: packed again, it would be there.
    let again = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--format=pax", "-cf", "-", "ping"])
        .current_dir(bench.path("tree"))
        .output()
        .unwrap()
        .stdout;
    let has = |what: &[u8]| again.windows(what.len()).any(|bytes| bytes == what);
    assert!(has(&pax("SCHILY.xattr.security.capability", &capability)) && has(&pax("SCHILY.xattr.user.mark", b"kept")));
    assert!(!has(b"trusted"));
}

#[test]
fn what_is_no_plain_file_is_not_read() {
    let Some(bench) = Bench::new() else { return };
    for folder in ["tree", "jail"] {
        fs::create_dir(bench.path(folder)).unwrap();
    }
    let most = Most { bytes: 1 << 20, members: 10 };
    let refusal = unpack(Path::new("/dev/zero"), &bench.path("tree"), &bench.path("jail"), most).unwrap_err();
    assert!(refusal.to_string().contains("no plain file"), "{refusal}");
}
