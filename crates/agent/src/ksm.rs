//! Pages of memory that guests hold alike, held once: the kernel's KSM, switched for the whole host.
//!
//! The kernel looks only at memory whose process has offered it, and QEMU does so where it is told `mem-merge=on`. The
//! switch, and the rate at which the kernel looks, are the host's and not ours: what stood there before is written down
//! first, once for each boot, and put back when the agent is told to end, when the setting goes, or by
//! [`crate::offline::restore_ksm`] where the agent was killed.
//!
//! Merging is a side channel: a guest that writes to a page and sees that it takes long knows that somebody has the
//! same one. It is off where nobody asked for it.

use crate::agent::Options;
use crate::files::{self, Layout};
use agent_api::{MemorySharing, SharingSetting as Setting};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel shows it.
pub const FOLDER: &str = "/sys/kernel/mm/ksm";

/// `run`: ends merging, and gives each its own pages back.
const UNMERGE: u64 = 2;
/// Between two looks of the kernel.
const SLEEP_MS: u64 = 20;
/// A look takes so many pages, and they have been seen all in about ten minutes: one look's part of a host's memory.
const LOOKS: u64 = 600_000 / SLEEP_MS;
/// The kernel's own number, and what a host is troubled with at most (some 250 MB/s that are read).
const PAGES: std::ops::RangeInclusive<u64> = 100..=1250;
/// What was changed, and in which order it is put back: the switch last, but for what is written while it is off.
const CHANGED: [&str; 3] = ["pages_to_scan", "sleep_millisecs", "run"];

/// What stood there before us.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Before {
    /// After another boot the kernel has its own values again.
    boot_id: String,
    values: BTreeMap<String, u64>,
    /// What we wrote since: who finds something else there leaves it, since somebody has changed it after us.
    #[serde(default)]
    written: BTreeMap<String, u64>,
}

/// A host's switch.
#[derive(Clone, Debug)]
pub struct Ksm {
    pub setting: Setting,
    pub folder: PathBuf,
    /// Where what stood there before is kept.
    pub record: PathBuf,
    pub boot_id: String,
    pub memory_mib: u64,
}

impl Ksm {
    pub fn new(options: &Options, layout: &Layout, memory_mib: u64) -> Ksm {
        let (folder, record, boot_id) = (options.ksm_folder.clone(), layout.ksm.clone(), options.boot_id.clone());
        Ksm { setting: options.ksm, folder, record, boot_id, memory_mib }
    }

    /// Brings the host to the setting. The answer is what an operator should know of: a setting that had no effect.
    pub fn apply(&self) -> Option<String> {
        let done = match self.setting {
            Setting::AsIs => restore(&self.folder, &self.record, &self.boot_id).map(|()| None),
            _ if !self.folder.is_dir() => Ok(match self.setting {
                Setting::On => Some("this host's kernel has no KSM: guests share no memory".to_owned()),
                _ => None,
            }),
            Setting::On => self.switch_on().map(|()| None),
            Setting::Off => self.switch_off(),
        };
        let said = done.unwrap_or_else(|error| Some(format!("the host's KSM could not be switched: {error}")));
        said.map(|said| format!("NUBO_KSM is {}, but {said}.", self.setting.as_str()))
    }

    fn switch_on(&self) -> io::Result<()> {
        self.remember()?;
        // A kernel that finds the number by itself takes none.
        if !advised(&self.folder) {
            let pages = self.memory_mib * (1 << 20) / page_bytes() / LOOKS;
            self.put("pages_to_scan", pages.clamp(*PAGES.start(), *PAGES.end()))?;
        }
        self.put("sleep_millisecs", SLEEP_MS)?;
        self.put("run", 1)
    }

    /// Ends merging. What is merged is given back only where there is room for it: the host would end guests otherwise.
    fn switch_off(&self) -> io::Result<Option<String>> {
        self.remember()?;
        let merged = read(&self.folder, "pages_sharing").unwrap_or(0).saturating_mul(page_bytes());
        let room = available_bytes();
        if merged.saturating_add(merged / 4) < room {
            self.put("run", UNMERGE)?;
            return Ok(None);
        }
        self.put("run", 0)?;
        let (merged, room) = (merged >> 20, room >> 20);
        Ok(Some(format!(
            "guests that run share {merged} MiB, and {room} MiB are free: no more is merged, and what is shared stays \
             so until they are restarted"
        )))
    }

    /// Writes down what stands there, where an earlier agent of this boot has not.
    fn remember(&self) -> io::Result<()> {
        if read_record(&self.record).is_some_and(|before| before.boot_id == self.boot_id) {
            return Ok(());
        }
        let value = |name: &&str| Some((name.to_string(), read(&self.folder, name)?));
        let values = CHANGED.iter().filter_map(value).collect();
        let written = BTreeMap::new();
        files::replace_json(&self.record, &Before { boot_id: self.boot_id.clone(), values, written })
    }

    /// Writes a value; first down what it will be, so that whoever comes after a crash knows it as ours.
    fn put(&self, name: &str, value: u64) -> io::Result<()> {
        if let Some(mut before) = read_record(&self.record)
            && before.written.insert(name.to_owned(), value) != Some(value)
        {
            files::replace_json(&self.record, &before)?;
        }
        write(&self.folder, name, value)
    }

    /// Puts back what stood there before; nothing where nothing was changed.
    pub fn restore(&self) -> io::Result<()> {
        restore(&self.folder, &self.record, &self.boot_id)
    }

    /// What is shared now; none: the kernel has no KSM.
    pub fn look(&self) -> Option<MemorySharing> {
        let number = |name| read(&self.folder, name);
        let pages_sharing = number("pages_sharing")?;
        let profit = std::fs::read_to_string(self.folder.join("general_profit")).ok();
        Some(MemorySharing {
            setting: self.setting,
            runs: number("run") == Some(1),
            pages_shared: number("pages_shared")?,
            pages_sharing,
            saved_bytes: pages_sharing.saturating_mul(page_bytes()),
            profit_bytes: profit.and_then(|text| text.trim().parse().ok()),
            full_scans: number("full_scans").unwrap_or(0),
        })
    }
}

/// Puts back what a record of this boot names, and forgets it.
pub(crate) fn restore(folder: &Path, record: &Path, boot_id: &str) -> io::Result<()> {
    let Some(before) = read_record(record) else { return files::remove(record) };
    if before.boot_id == boot_id && folder.is_dir() {
        for name in CHANGED {
            let ours = before.written.get(name).is_some_and(|ours| read(folder, name) == Some(*ours));
            if let Some(value) = before.values.get(name).filter(|value| ours && read(folder, name) != Some(**value)) {
                // A kernel that finds the number of pages by itself by now takes none.
                match write(folder, name, *value) {
                    Err(error) if name == "run" => return Err(error),
                    _ => {}
                }
            }
        }
    }
    files::remove(record)
}

fn read_record(path: &Path) -> Option<Before> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn read(folder: &Path, name: &str) -> Option<u64> {
    std::fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
}

fn write(folder: &Path, name: &str, value: u64) -> io::Result<()> {
    std::fs::write(folder.join(name), format!("{value}\n"))
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.join(name).display())))
}

/// `none [scan-time]`: the kernel chooses how many pages it looks at.
fn advised(folder: &Path) -> bool {
    let mode = std::fs::read_to_string(folder.join("advisor_mode")).unwrap_or_default();
    mode.contains('[') && !mode.contains("[none]")
}

fn page_bytes() -> u64 {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    page.and_then(|page| u64::try_from(page).ok()).unwrap_or(4096)
}

fn available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    kib.saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel's folder as it stands after a boot, with some changes.
    struct Kernel(tempfile::TempDir);

    impl Kernel {
        fn new(changes: &[(&str, &str)]) -> Kernel {
            let kernel = Kernel(tempfile::tempdir().unwrap());
            std::fs::create_dir(kernel.folder()).unwrap();
            let usual = [("run", "0"), ("pages_to_scan", "100"), ("sleep_millisecs", "20"), ("pages_shared", "0")];
            let more = [("pages_sharing", "0"), ("full_scans", "0"), ("general_profit", "0")];
            for (name, value) in usual.iter().chain(&more).chain(changes) {
                std::fs::write(kernel.folder().join(name), format!("{value}\n")).unwrap();
            }
            kernel
        }

        fn folder(&self) -> PathBuf {
            self.0.path().join("ksm")
        }

        fn ksm(&self, setting: Setting) -> Ksm {
            let record = self.0.path().join("ksm.json");
            Ksm { setting, folder: self.folder(), record, boot_id: "this boot".into(), memory_mib: 24 << 10 }
        }

        /// `run`, `pages_to_scan` and `sleep_millisecs`.
        fn stands(&self) -> [u64; 3] {
            ["run", "pages_to_scan", "sleep_millisecs"].map(|name| read(&self.folder(), name).unwrap())
        }

        fn recorded(&self) -> bool {
            self.0.path().join("ksm.json").exists()
        }
    }

    #[test]
    fn the_switch_is_set_and_put_back() {
        let kernel = Kernel::new(&[("sleep_millisecs", "200")]);
        assert_eq!(kernel.ksm(Setting::AsIs).apply(), None);
        assert_eq!((kernel.stands(), kernel.recorded()), ([0, 100, 200], false));
        assert_eq!(kernel.ksm(Setting::On).apply(), None);
        assert_eq!((kernel.stands(), kernel.recorded()), ([1, 209, 20], true));
        // An agent that was killed has put nothing back; the next one knows what stood there first.
        assert_eq!(kernel.ksm(Setting::On).apply(), None);
        kernel.ksm(Setting::On).restore().unwrap();
        assert_eq!((kernel.stands(), kernel.recorded()), ([0, 100, 200], false));

        // The setting goes, or becomes another one.
        kernel.ksm(Setting::On).apply();
        assert_eq!(kernel.ksm(Setting::Off).apply(), None);
        assert_eq!(kernel.stands()[0], 2);
        assert_eq!(kernel.ksm(Setting::AsIs).apply(), None);
        assert_eq!((kernel.stands(), kernel.recorded()), ([0, 100, 200], false));
    }

    #[test]
    fn what_somebody_has_changed_after_us_stays() {
        let kernel = Kernel::new(&[]);
        kernel.ksm(Setting::On).apply();
        write(&kernel.folder(), "run", 0).unwrap();
        write(&kernel.folder(), "sleep_millisecs", 77).unwrap();
        let before = [0, 100, 77];
        kernel.ksm(Setting::On).restore().unwrap();
        assert_eq!((kernel.stands(), kernel.recorded()), (before, false));
    }

    #[test]
    fn what_another_boot_had_is_not_put_back() {
        let kernel = Kernel::new(&[("run", "1")]);
        kernel.ksm(Setting::Off).apply();
        let after = Ksm { boot_id: "another boot".into(), ..kernel.ksm(Setting::AsIs) };
        assert_eq!(after.apply(), None);
        assert_eq!((kernel.stands()[0], kernel.recorded()), (2, false));
        // What is written down then is what stands there in that boot.
        let on = Ksm { setting: Setting::On, ..after };
        on.apply();
        on.restore().unwrap();
        assert_eq!(kernel.stands()[0], 2);
    }

    #[test]
    fn a_kernel_that_counts_by_itself_is_left_to_it() {
        let kernel = Kernel::new(&[("advisor_mode", "none [scan-time]")]);
        kernel.ksm(Setting::On).apply();
        assert_eq!(kernel.stands(), [1, 100, 20]);
        let huge = Ksm { memory_mib: 1 << 20, ..Kernel::new(&[]).ksm(Setting::On) };
        let kernel = Kernel::new(&[("advisor_mode", "[none] scan-time")]);
        Ksm { folder: kernel.folder(), record: kernel.0.path().join("ksm.json"), ..huge }.apply();
        assert_eq!(kernel.stands(), [1, 1250, 20]);
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let none = |setting| Ksm { folder: "/nowhere/ksm".into(), ..Kernel::new(&[]).ksm(setting) };
        let said = none(Setting::On).apply().unwrap();
        assert_eq!(said, "NUBO_KSM is on, but this host's kernel has no KSM: guests share no memory.");
        assert_eq!((none(Setting::Off).apply(), none(Setting::AsIs).apply()), (None, None));
        assert_eq!(none(Setting::On).look(), None);
        // More is merged than any machine has free.
        let full = Kernel::new(&[("run", "1"), ("pages_sharing", "1000000000000")]);
        let said = full.ksm(Setting::Off).apply().unwrap();
        assert!(said.starts_with("NUBO_KSM is off, but guests that run share 3906250000 MiB, and "), "{said}");
        assert_eq!(full.stands()[0], 0);
    }

    #[test]
    fn the_saving_is_what_others_share() {
        let kernel = Kernel::new(&[
            ("run", "1"),
            ("pages_shared", "10"),
            ("pages_sharing", "25600"),
            ("general_profit", "-64"),
            ("full_scans", "3"),
        ]);
        let seen = kernel.ksm(Setting::On).look().unwrap();
        let expected = MemorySharing {
            setting: Setting::On,
            runs: true,
            pages_shared: 10,
            pages_sharing: 25600,
            saved_bytes: 25600 * page_bytes(),
            profit_bytes: Some(-64),
            full_scans: 3,
        };
        assert_eq!(seen, expected);
        // Kernels before 6.4 say nothing of the profit.
        std::fs::remove_file(kernel.folder().join("general_profit")).unwrap();
        assert_eq!(kernel.ksm(Setting::On).look().unwrap().profit_bytes, None);
    }
}
