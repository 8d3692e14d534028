//! A repository in a folder, its index, its signatures, and who tampers with them.

use super::*;
use expect_test::expect;
use std::path::PathBuf;
use std::process::Command;

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Bench {
        Bench(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A repository with a raw file and a packed one.
    fn repository(&self) -> PathBuf {
        let folder = self.path("repository");
        fs::create_dir_all(&folder).unwrap();
        let mut bytes = vec![0u8; 3 << 20];
        bytes[1 << 20] = 7;
        fs::write(folder.join("plain.raw"), &bytes[..2 << 20]).unwrap();
        fs::write(folder.join("small-1.raw"), &bytes).unwrap();
        self.run("xz", &["-q", folder.join("small-1.raw").to_str().unwrap()]);
        fs::write(folder.join("readme.txt"), "no image").unwrap();
        folder
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        let output = command.args(arguments).env("GNUPGHOME", self.path("gnupg")).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn pull(&self, name: &str, from: &Path) -> Pull {
        Pull {
            name: name.into(),
            from: Some(from.to_str().unwrap().into()),
            output: Some(self.path("pulled")),
            keyring: None,
            arch: "x86_64".into(),
            most_bytes: 1 << 30,
            force: true,
        }
    }
}

fn listing() -> Listing {
    Listing { arch: "x86_64".into(), sign: None, most_bytes: 1 << 30 }
}

/// Nothing is fetched from a network in these tests.
struct NoWeb;

impl Fetch for NoWeb {
    fn get(&mut self, url: &str, _: &mut dyn Write) -> Result<bool> {
        Err(Error::Refused(format!("{url} was asked for")))
    }
}

fn said(what: &Pull) -> String {
    pull(what, &mut NoWeb).unwrap_err().to_string()
}

#[test]
fn an_index_reads_back_as_it_was_written() {
    let text = "# a comment\n[one]\nname=One\nnotes=First.\n \n Second line.\nnotes[de]=Erste.\nsize=10\n\n[two]\nfile=two.xz\n";
    let entries = parse(text).unwrap();
    assert_eq!(entries[0].get("notes"), Some("First.\n\nSecond line."));
    assert_eq!((entries[0].number("size"), entries[1].name.as_str()), (Some(10), "two"));
    assert_eq!(parse(&render(&entries)).unwrap(), entries);
    let check = |text: &str| parse(text).unwrap_err().to_string();
    expect!["line 1 of the index stands in no section"].assert_eq(&check("a=b"));
    expect!["line 1 of the index goes on from no value"].assert_eq(&check(" more"));
    expect!["line 2 of the index is neither a section nor a field"].assert_eq(&check("[a]\nhm"));
    expect!["line 1 of the index has the name '../a': letters, digits, '-', '_' and '.' are right"]
        .assert_eq(&check("[../a]"));
}

#[test]
fn a_folder_is_listed_and_its_images_come_out_whole() {
    let bench = Bench::new();
    let folder = bench.repository();
    let listed = index(&folder, &listing()).unwrap();
    assert_eq!(listed.images, ["plain", "small-1"]);
    assert_eq!(listed.images, listed.changed);
    let text = fs::read_to_string(folder.join("index")).unwrap();
    for line in ["[small-1]", "file=small-1.raw.xz", "format=raw", "size=3145728", "arch=x86_64", "compressed_size="] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let pulled = pull(&bench.pull("small-1", &folder), &mut NoWeb).unwrap();
    assert_eq!((pulled.format.as_str(), pulled.virtual_size, pulled.signed), ("raw", 3 << 20, false));
    let bytes = fs::read(bench.path("pulled")).unwrap();
    assert!(bytes.len() == 3 << 20 && bytes[1 << 20] == 7 && bytes.iter().filter(|byte| **byte != 0).count() == 1);
    pull(&bench.pull("plain", &folder), &mut NoWeb).unwrap();
    assert_eq!(fs::read(bench.path("pulled")).unwrap(), fs::read(folder.join("plain.raw")).unwrap());
    assert!(said(&bench.pull("none", &folder)).contains("it has plain, small-1"));
    assert!(said(&Pull { arch: "arm64".into(), ..bench.pull("plain", &folder) }).contains("for arm64"));
    assert!(matches!(pull(&Pull { force: false, ..bench.pull("plain", &folder) }, &mut NoWeb), Err(Error::Exists(_))));

    // What a person wrote stays, and a change is counted.
    fs::write(folder.join("index"), text.replace("name=plain", "name=Plain\nnotes=Mine.\n  Really.")).unwrap();
    assert_eq!(index(&folder, &listing()).unwrap().changed, [""; 0]);
    fs::write(folder.join("plain.raw"), vec![1; 1 << 20]).unwrap();
    assert_eq!(index(&folder, &listing()).unwrap().changed, ["plain"]);
    let entries = parse(&fs::read_to_string(folder.join("index")).unwrap()).unwrap();
    assert_eq!((entries[0].get("name"), entries[0].get("notes")), (Some("Plain"), Some("Mine.\n Really.")));
    assert_eq!((entries[0].number("revision"), entries[0].number("size")), (Some(2), Some(1 << 20)));
}

#[test]
fn what_is_not_as_listed_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    let folder = bench.repository();
    index(&folder, &listing()).unwrap();
    let text = fs::read_to_string(folder.join("index")).unwrap();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        fs::write(folder.join("index"), text.replace(from, to)).unwrap();
    };
    with("size=3145728", "size=1048576");
    assert!(said(&bench.pull("small-1", &folder)).contains("unfolds to more than 1048576 bytes"));
    with("size=3145728", "size=4194304");
    assert!(said(&bench.pull("small-1", &folder)).contains("has a disk of 3145728 bytes, and the index says 4194304"));
    with("format=raw", "format=qcow2");
    assert!(said(&bench.pull("plain", &folder)).contains("disk_format is 'qcow2'"));
    for file in ["../plain.raw", "/etc/passwd", "http://other/plain.raw", "a/../../b", "a?b", ""] {
        with("file=plain.raw", &format!("file={file}"));
        assert!(said(&bench.pull("plain", &folder)).contains("which is not below it"), "{file}");
    }
    with("checksum[sha512]=", "checksum[md5]=");
    assert!(said(&bench.pull("plain", &folder)).contains("says no checksum"));
    with("compressed_size=", "compressed_size=1");
    fs::write(folder.join("index"), &text).unwrap();
    let few = Pull { most_bytes: 1000, ..bench.pull("plain", &folder) };
    assert!(said(&few).contains("it has more than 1000 bytes"));
    fs::write(folder.join("plain.raw"), vec![2; 2 << 20]).unwrap();
    assert!(said(&bench.pull("plain", &folder)).contains("is not what the list says"));
    fs::remove_file(folder.join("plain.raw")).unwrap();
    assert!(said(&bench.pull("plain", &folder)).contains("has no such file"));
    assert!(said(&bench.pull("../plain", &folder)).contains("letters, digits"));
    let nowhere = Pull { from: None, ..bench.pull("plain", &folder) };
    assert!(said(&nowhere).contains("say --from, or one of debian-11"));
    let over_there = Pull { from: None, ..bench.pull("debian-12", &folder) };
    assert!(said(&over_there).contains("https://cloud.debian.org/images/cloud/bookworm/latest/index was asked for"));
    assert!(!bench.path("pulled").exists());
    assert_eq!(fs::read_dir(bench.0.path()).unwrap().count(), 1);
}

#[test]
fn an_overlay_in_a_repository_is_no_image() {
    let bench = Bench::new();
    if !testkit::require("qemu") {
        return;
    }
    let folder = bench.repository();
    let target = folder.join("thief.qcow2");
    bench.run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", target.to_str().unwrap(), "1M"],
    );
    assert!(index(&folder, &listing()).unwrap_err().to_string().contains("backing file"));
}

#[test]
fn lists_of_checksums_are_read_as_the_cloud_sites_write_them() {
    let bench = Bench::new();
    let folder = bench.path("site");
    fs::create_dir(&folder).unwrap();
    let names = ["debian-12-genericcloud-amd64.qcow2", "ubuntu-24.04-server-cloudimg-amd64.img"];
    for name in names {
        fs::write(folder.join(name), vec![3; 1 << 20]).unwrap();
    }
    let site = folder.to_str().unwrap();
    for (program, list, star) in [("sha256sum", "SHA256SUMS", "-b"), ("sha512sum", "SHA512SUMS", "-t")] {
        let sums = bench.run("sh", &["-c", &format!("cd {site} && {program} {star} debian* ubuntu*")]);
        fs::write(folder.join(list), sums).unwrap();
        for name in [names[0], names[1], "debian-12", "ubuntu-24.04"] {
            pull(&bench.pull(name, &folder), &mut NoWeb).unwrap();
        }
    }
    assert!(said(&bench.pull("debian-13", &folder)).contains("SHA512SUMS has no debian-13"));
    fs::write(folder.join(names[0]), "other").unwrap();
    assert!(said(&bench.pull("debian-12", &folder)).contains("is not what the list says"));
    fs::remove_file(folder.join("SHA512SUMS")).unwrap();
    fs::remove_file(folder.join("SHA256SUMS")).unwrap();
    assert!(said(&bench.pull("debian-12", &folder)).contains("has no index, index.asc, SHA512SUMS or SHA256SUMS"));
}

#[test]
fn only_what_a_key_of_the_keyring_has_signed_is_believed() {
    if !testkit::require("gnupg") {
        return;
    }
    let bench = Bench::new();
    let folder = bench.repository();
    fs::create_dir(bench.path("gnupg")).unwrap();
    for who in ["ours@example.org", "theirs@example.org"] {
        bench.run("gpg", &["--batch", "--quiet", "--passphrase", "", "--quick-gen-key", who, "ed25519", "sign"]);
    }
    let export = |who: &str, armour: &str, name: &str| {
        let path = bench.path(name);
        bench.run("gpg", &["--batch", armour, "--output", path.to_str().unwrap(), "--export", who]);
        path
    };
    let keyrings = [
        export("ours@example.org", "--no-armor", "ours.gpg"),
        export("ours@example.org", "--armor", "ours.asc"),
        export("theirs@example.org", "--armor", "theirs.asc"),
    ];
    index(&folder, &listing()).unwrap();
    // As `sign` does it, with the keys of the test.
    let sign = |how: &[&str], output: &Path, input: &Path| {
        let fixed = ["--batch", "--yes", "--quiet", "--local-user", "ours@example.org", "--output"];
        let files = [output.to_str().unwrap(), input.to_str().unwrap()];
        bench.run("gpg", &[&fixed[..], &files[..1], how, &files[1..]].concat());
    };
    let with = |keyring: &Path| Pull { keyring: Some(keyring.to_owned()), ..bench.pull("small-1", &folder) };
    assert!(said(&with(&keyrings[0])).contains("has no index.asc"));
    sign(&["--clearsign"], &folder.join("index.asc"), &folder.join("index"));
    // The plain index is not asked: whoever can change it changes nothing.
    fs::write(folder.join("index"), "[small-1]\nfile=evil\n").unwrap();
    assert!(pull(&with(&keyrings[0]), &mut NoWeb).unwrap().signed);
    assert!(pull(&with(&keyrings[1]), &mut NoWeb).unwrap().signed);
    assert!(said(&with(&keyrings[2])).contains("not of a key of the keyring"));
    let signed = fs::read_to_string(folder.join("index.asc")).unwrap();
    fs::write(folder.join("index.asc"), signed.replace("size=3145728", "size=3145729")).unwrap();
    assert!(said(&with(&keyrings[0])).contains("not of a key of the keyring"));
    // What stands before the signed text is not of it.
    fs::write(folder.join("index.asc"), format!("[small-1]\nfile=evil\n\n{signed}")).unwrap();
    assert!(pull(&with(&keyrings[0]), &mut NoWeb).unwrap().signed);
    // Without a keyring and without an index, the text is read all the same.
    fs::remove_file(folder.join("index")).unwrap();
    fs::write(folder.join("index.asc"), &signed).unwrap();
    assert!(!pull(&bench.pull("small-1", &folder), &mut NoWeb).unwrap().signed);

    // A list of checksums with its signature beside it.
    fs::remove_file(folder.join("index.asc")).unwrap();
    let place = folder.to_str().unwrap();
    let sums = bench.run("sh", &["-c", &format!("cd {place} && sha256sum plain.raw")]);
    fs::write(folder.join("SHA256SUMS"), sums).unwrap();
    let with = |keyring: &Path| Pull { keyring: Some(keyring.to_owned()), ..bench.pull("plain.raw", &folder) };
    assert!(said(&with(&keyrings[0])).contains("is not signed"));
    sign(&["--detach-sign"], &folder.join("SHA256SUMS.gpg"), &folder.join("SHA256SUMS"));
    assert!(pull(&with(&keyrings[0]), &mut NoWeb).unwrap().signed);
    assert!(said(&with(&keyrings[2])).contains("not of a key of the keyring"));
}
