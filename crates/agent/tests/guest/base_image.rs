//! The image below guests' disks: one file for all of them, which none of them can write.

use crate::fixture::{Fixture, NOBODY, spec};
use agent_api::ObservedPower;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// The descriptors by which a process has a file open: their names in /proc, and whether they write.
fn open_files(pid: i32, inode: u64) -> Vec<(PathBuf, bool)> {
    let folder = PathBuf::from(format!("/proc/{pid}/fd"));
    let names = std::fs::read_dir(&folder).unwrap().flatten().map(|it| it.file_name());
    let own = names.filter(|name| folder.join(name).metadata().is_ok_and(|about| about.ino() == inode));
    let writes = |name: &std::ffi::OsString| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", name.to_string_lossy())).unwrap();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        i32::from_str_radix(flags, 8).unwrap() & nix::fcntl::OFlag::O_ACCMODE.bits() != 0
    };
    own.map(|name| (folder.join(&name), writes(&name))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_share_one_file_and_cannot_write_it() {
    let Some(mut fixture) = Fixture::new("base").await else { return };
    fixture.own_image();
    let agent = fixture.agent().await;
    let specs = [spec(1), spec(2)];
    for spec in &specs {
        fixture.put(&agent, spec).await;
    }
    let base = fixture.base(&specs[0]);
    for spec in &specs {
        fixture.until(&agent, spec, ObservedPower::Running).await;
        let about = base.metadata().unwrap();
        assert_eq!(about.mode() & 0o7777, 0o440);
        assert_ne!(about.uid(), NOBODY);
        let pid = fixture.process(spec).unwrap().pid;
        let open = open_files(pid, about.ino());
        assert!(!open.is_empty() && open.iter().all(|(_, writes)| !writes), "{open:?}");
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        let node = line.split('\0').find(|word| word.contains("\"node-name\":\"root\"")).unwrap();
        let node: serde_json::Value = serde_json::from_str(node).unwrap();
        let below = &node["backing"];
        assert_eq!((&below["read-only"], &below["file"]["read-only"]), (&true.into(), &true.into()), "{node}");
        assert_eq!(below["file"]["auto-read-only"], false, "a write does not open it anew: {node}");
        // Whatever a guest makes of its process: it cannot open the file anew for writing.
        let user = || {
            let mut user = Command::new("sh");
            user.uid(NOBODY).gid(NOBODY);
            user
        };
        let (read_only, _) = &open[0];
        let opened = user().args(["-c", "exec 3>>\"$0\""]).arg(read_only).output().unwrap();
        assert!(!opened.status.success(), "the guests' user opened {read_only:?}");
        let own = fixture.folder(spec).join("root.qcow2").metadata().unwrap().ino();
        let own = open_files(pid, own);
        assert!(own.iter().any(|(_, writes)| *writes), "{own:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_was_written_to_is_noticed_by_the_next_guest() {
    let Some(mut fixture) = Fixture::new("spoilt").await else { return };
    fixture.own_image();
    let agent = fixture.agent().await;
    let (first, second, third) = (spec(1), spec(2), spec(3));
    fixture.put(&agent, &first).await;
    fixture.until(&agent, &first, ObservedPower::Running).await;
    let base = fixture.base(&first);
    let old = base.metadata().unwrap().ino();
    let spoil = || {
        let mut file = std::fs::File::options().write(true).open(&base).unwrap();
        file.write_all(b"spoilt").unwrap();
    };

    // Control has it whole: it is fetched again, and the running guest keeps what it has.
    fixture.own_image();
    spoil();
    fixture.put(&agent, &second).await;
    fixture.until(&agent, &second, ObservedPower::Running).await;
    let new = base.metadata().unwrap();
    assert_ne!(new.ino(), old);
    let whole = std::fs::read(&fixture.image).unwrap();
    assert!(std::fs::read(&base).unwrap() == whole, "the bytes are the image's again");
    assert!(!open_files(fixture.process(&first).unwrap().pid, old).is_empty());
    assert!(!open_files(fixture.process(&second).unwrap().pid, new.ino()).is_empty());

    // Control's is spoilt, too: on one machine it is the same file.
    spoil();
    if std::fs::read(&fixture.image).unwrap() == whole {
        // Blocks were shared here, or copied: control's file is one of its own.
        std::fs::write(&fixture.image, vec![0; whole.len()]).unwrap();
    }
    fixture.put(&agent, &third).await;
    let fault = fixture.until_fault(&agent, &third).await;
    assert!(fault.message.contains("The image is damaged: its SHA-512"), "{fault:?}");
    assert!(!fault.retried && fixture.process(&third).is_none());
}
