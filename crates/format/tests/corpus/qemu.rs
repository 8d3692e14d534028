//! `qemu-img`, to make files and to be asked about them.

use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A folder that goes when the test ends. An account without any rights reads there.
pub struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// None, with the reason printed, where qemu-img is missing and nobody requires it.
pub fn work(name: &str) -> Option<Work> {
    let there = Command::new("qemu-img").arg("--version").output().is_ok();
    let required = std::env::var("NUBO_REQUIRE").unwrap_or_default();
    if !there {
        assert!(!required.split(',').any(|name| matches!(name, "all" | "qemu")), "qemu-img is missing");
        println!("SKIP qemu-img is missing");
        return None;
    }
    let folder = std::env::temp_dir().join(format!("nubo-format-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    Some(Work(folder))
}

/// True for the version that the tables of disagreements were written with; others may disagree less.
pub fn is_the_version_of_the_tables() -> bool {
    let told = Command::new("qemu-img").arg("--version").output().expect("qemu-img runs");
    String::from_utf8_lossy(&told.stdout).contains("version 7.2.")
}

impl Work {
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Runs commands, parted by ` ; `, in the folder. `$` is the file's name.
    pub fn make(&self, commands: &str, file: &str) {
        for command in commands.split(" ; ") {
            let words: Vec<String> = command.split(' ').map(|word| word.replace('$', file)).collect();
            let run = || Command::new("qemu-img").args(&words).current_dir(&self.0).output().expect("qemu-img runs");
            let mut done = run();
            // Its measuring of hashes for LUKS fails where the clock is too coarse for it.
            for _ in 0..20 {
                if done.status.success() || !said(&done).contains("CPU usage") {
                    break;
                }
                done = run();
            }
            assert!(done.status.success(), "qemu-img {words:?}: {}", said(&done));
        }
    }

    /// `qemu-img info` of the file as `driver`, or why it refuses. The file may be hostile: the program runs without
    /// rights, with bounds of memory and processor time, and can write nothing.
    pub fn info(&self, file: &str, driver: &str) -> Result<Value, String> {
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"];
        let bounds = ["prlimit", "--as=2147483648", "--cpu=20", "--fsize=0", "--core=0"];
        let ask = ["qemu-img", "info", "-U", "--output=json", "-f", driver, file];
        let before = if is_root { &nobody[..] } else { &[] };
        let words = [before, &bounds, &ask].concat();
        let done = Command::new(words[0]).args(&words[1..]).current_dir(&self.0).output().expect("setpriv, prlimit");
        if !done.status.success() {
            return Err(said(&done));
        }
        Ok(serde_json::from_slice(&done.stdout).expect("JSON"))
    }
}

fn said(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}
