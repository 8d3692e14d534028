//! Requirements of tests: a missing one skips the test with a reason, or fails it where it was asked for.

use std::path::{Path, PathBuf};

/// True when the machine has `what`: root, netns, qemu, lxc, postgres, clients, filesystems, gnupg, dpkg, ovn, corosync or ceph.
///
/// Otherwise prints `SKIP` with the reason and returns false, and the test returns. When `NUBO_REQUIRE` is `all` or
/// names `what` (a comma list), it panics instead: a machine that is meant to have it lacks it.
#[must_use]
pub fn require(what: &str) -> bool {
    let Err(reason) = missing(what) else { return true };
    let required = std::env::var("NUBO_REQUIRE").unwrap_or_default();
    if required.split(',').any(|item| matches!(item.trim(), "all") || item.trim() == what) {
        panic!("required {what}: {reason}");
    }
    println!("SKIP {what}: {reason}");
    note(&format!("{what}: {reason}"));
    false
}

/// Tells the test runner of a skip, in the file that NUBO_SKIPS names: a passing test's output is not shown.
fn note(reason: &str) {
    use std::io::Write;
    let Some(path) = std::env::var_os("NUBO_SKIPS") else { return };
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    if let Ok(mut file) = std::fs::OpenOptions::new().append(true).open(path) {
        let _ = writeln!(file, "{test}: {reason}");
    }
}

fn missing(what: &str) -> Result<(), String> {
    match what {
        "root" => root(),
        "netns" => root().and_then(|()| program("ip")).and_then(|()| program("nft")),
        "qemu" => program("qemu-system-x86_64").and_then(|()| program("qemu-img")),
        "lxc" => root().and_then(|()| program("lxc-start")),
        "postgres" => postgres_bin().map(|_| ()).ok_or_else(|| "PostgreSQL's initdb is not installed".into()),
        "clients" => program("openstack"),
        "ovn" => program("ovn-nbctl").and_then(|()| program("ovs-vsctl")),
        "filesystems" => ["mke2fs", "mkfs.xfs", "mkfs.btrfs", "mkfs.vfat", "mcopy"].into_iter().try_for_each(program),
        "gnupg" => program("gpg").and_then(|()| program("gpgv")),
        "dpkg" => program("dpkg-deb"),
        "corosync" => program("corosync"),
        "ceph" => program("ceph"),
        other => panic!("{other} is no requirement that testkit knows"),
    }
}

fn root() -> Result<(), String> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err("needs root".into()) }
}

fn program(name: &str) -> Result<(), String> {
    find(name).map(|_| ()).ok_or_else(|| format!("{name} is not installed"))
}

/// A program's path, also where an unprivileged PATH does not look.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// The directory of the newest PostgreSQL's programs.
pub fn postgres_bin() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").is_file())
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin).or_else(|| find("initdb")?.parent().map(Path::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_there_is_found_and_one_that_is_not_is_named() {
        assert_eq!(program("sh"), Ok(()));
        assert_eq!(program("no-such-program"), Err("no-such-program is not installed".into()));
    }
}
