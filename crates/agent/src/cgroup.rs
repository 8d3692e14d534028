//! A control group of its own for each guest, in whichever hierarchies are mounted. Best effort: what cannot be made
//! is said once and costs a guest nothing but its limits.

use base::{CloudId, ServerId};
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// Threads and processes that one guest's QEMU may have, besides its processors.
pub(crate) const TASKS: u64 = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    /// Version 1 controllers by name; empty for version 2.
    controllers: Vec<String>,
}

/// The mounted hierarchies, and the cloud whose groups stand in them.
#[derive(Clone, Debug)]
pub struct Cgroups {
    cloud: CloudId,
    hierarchies: Vec<Hierarchy>,
}

impl Cgroups {
    pub fn detect(cloud: &CloudId) -> Cgroups {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Cgroups { cloud: cloud.clone(), hierarchies: parse(&mounts) }
    }

    /// The cloud's own directory in each hierarchy, whether it is there or not.
    pub fn bases(&self) -> impl Iterator<Item = PathBuf> {
        self.hierarchies.iter().map(|it| it.mount.join(format!("nubo-{}", self.cloud)))
    }

    fn groups(&self, id: &ServerId) -> impl Iterator<Item = (&Hierarchy, PathBuf)> {
        let name = format!("nubo-{}", self.cloud);
        self.hierarchies.iter().map(move |it| (it, it.mount.join(&name).join(id.as_str())))
    }

    /// Makes the guest's groups and brings its process into them, unless it is there already; what did not work.
    ///
    /// The kernel lets the first mover wait until every processor has passed a quiet point, some 15 ms: so QEMU is not
    /// held up by this before it begins, but moved while it starts.
    pub fn enter(&self, id: &ServerId, vcpus: u32, pid: i32) -> Option<String> {
        let own = format!("/nubo-{}/{id}\n", self.cloud);
        let stands = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if !self.hierarchies.is_empty() && stands.matches(&own).count() == self.hierarchies.len() {
            return None;
        }
        let (files, mut problem) = self.ensure(id, vcpus);
        for mut file in files {
            match std::io::Write::write_all(&mut file, format!("{pid}\n").as_bytes()) {
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => return None,
                Err(error) => problem = Some(format!("process {pid} does not enter: {error}")),
                Ok(()) => {}
            }
        }
        problem
    }

    /// Makes the guest's groups; their `cgroup.procs`, opened for writing, and what did not work.
    fn ensure(&self, id: &ServerId, vcpus: u32) -> (Vec<File>, Option<String>) {
        let mut files = Vec::new();
        let mut problem = None;
        for (hierarchy, group) in self.groups(id) {
            match make(hierarchy, &group, vcpus) {
                Ok(file) => files.push(file),
                Err(error) => problem = Some(format!("{}: {error}", group.display())),
            }
        }
        if self.hierarchies.is_empty() {
            problem = Some("no cgroup hierarchy is mounted".into());
        }
        (files, problem)
    }

    /// Removes the groups of all guests, and the cloud's. Busy for a group whose guest still runs.
    pub fn remove_all(&self) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            let own = hierarchy.mount.join(format!("nubo-{}", self.cloud));
            if !own.is_dir() {
                continue;
            }
            for entry in std::fs::read_dir(&own)?.flatten().filter(|entry| entry.path().is_dir()) {
                std::fs::remove_dir(entry.path())?;
            }
            std::fs::remove_dir(&own)?;
        }
        Ok(())
    }

    /// Removes the guest's groups, and the cloud's when this was the last. They are empty: the process has ended.
    pub fn ensure_absent(&self, id: &ServerId) {
        for (_, group) in self.groups(id) {
            match std::fs::remove_dir(&group) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, group = %group.display(), "a control group stays");
                }
                _ => {}
            }
            if let Some(parent) = group.parent() {
                let _ = std::fs::remove_dir(parent);
            }
        }
    }
}

fn make(hierarchy: &Hierarchy, group: &std::path::Path, vcpus: u32) -> io::Result<File> {
    std::fs::create_dir_all(group)?;
    let set = |name: &str, value: u64| {
        // A controller that is not switched on for this group has no such file: nothing to limit then.
        let _ = std::fs::write(group.join(name), value.to_string());
    };
    let has = |name: &str| hierarchy.controllers.iter().any(|it| it == name);
    let tasks = TASKS + u64::from(vcpus);
    if hierarchy.controllers.is_empty() {
        set("cpu.weight", (100 * u64::from(vcpus)).clamp(1, 10_000));
        set("pids.max", tasks);
    }
    if has("cpu") {
        set("cpu.shares", (1024 * u64::from(vcpus)).clamp(2, 262_144));
    }
    if has("pids") {
        set("pids.max", tasks);
    }
    if has("cpuset") {
        // Without these a version 1 group takes no process.
        for name in ["cpuset.cpus", "cpuset.mems"] {
            for folder in [group.parent().unwrap_or(group), group] {
                if let Ok(above) = std::fs::read(hierarchy.mount.join(name)) {
                    let _ = std::fs::write(folder.join(name), above);
                }
            }
        }
    }
    File::options().write(true).open(group.join("cgroup.procs"))
}

/// Reads `/proc/self/mountinfo`: `… - cgroup cgroup rw,cpu,cpuacct`.
fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let kind = right.next().unwrap_or_default();
        let options = right.nth(1).unwrap_or_default();
        let Some(mount) = left.split(' ').nth(4) else { continue };
        let controllers: Vec<String> = match kind {
            "cgroup2" => Vec::new(),
            // A named hierarchy limits nothing, but systemd's decides what belongs to a unit: guests leave it, too.
            "cgroup" => options.split(',').filter(|it| !matches!(*it, "rw" | "ro")).map(str::to_owned).collect(),
            _ => continue,
        };
        let known = found.iter().any(|it| it.controllers == controllers);
        if !known {
            found.push(Hierarchy { mount: mount.into(), controllers });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found() {
        let found = parse(
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw\n",
        );
        let shown: Vec<_> = found.iter().map(|it| (it.mount.to_str().unwrap(), it.controllers.join(","))).collect();
        assert_eq!(
            shown,
            [
                ("/sys/fs/cgroup/cpu", "cpu".to_owned()),
                ("/sys/fs/cgroup/systemd", "name=systemd".to_owned()),
                ("/sys/fs/cgroup/unified", String::new()),
            ]
        );
    }

    #[test]
    fn groups_are_made_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let hierarchies = vec![Hierarchy { mount: folder.path().into(), controllers: Vec::new() }];
        let groups = Cgroups { cloud: "0a1b2c3d".into(), hierarchies };
        let id = ServerId::from("a");
        // A plain folder has no cgroup.procs: said, not fatal.
        let (files, problem) = groups.ensure(&id, 2);
        assert!(files.is_empty() && problem.is_some());
        let group = folder.path().join("nubo-0a1b2c3d/a");
        assert!(group.is_dir());
        std::fs::remove_file(group.join("cpu.weight")).unwrap();
        std::fs::remove_file(group.join("pids.max")).unwrap();
        groups.ensure_absent(&id);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
