//! What this host is and can carry.

use crate::agent::Options;
use agent_api::HostInventory;
use base::Env;
use qemu::Accel;
use qemu::accel::Choice;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// Tells one boot of the machine from the next.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The group that may open /dev/kvm, for guests that need it.
pub fn kvm_group(accel: Accel) -> Vec<u32> {
    match (accel, std::fs::metadata("/dev/kvm")) {
        (Accel::Kvm, Ok(about)) => vec![about.gid()],
        _ => Vec::new(),
    }
}

pub async fn take(options: &Options, env: &Env, choice: &Choice) -> HostInventory {
    let mut warnings: Vec<String> = choice.warning.iter().cloned().collect();
    let hypervisor_version = match qemu_version(options).await {
        Ok(version) => version,
        Err(why) => {
            warnings.push(format!("No guest can start: {why}. Install qemu-system-x86."));
            0
        }
    };
    if options.guest_user.is_none() && nix::unistd::getuid().is_root() {
        warnings.push("Guests run as root: the agent was given no unprivileged user for them.".into());
    }
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let disk = nix::sys::statvfs::statvfs(&options.state);
    HostInventory {
        name: options.host.clone(),
        session: env.secret_hex(8),
        boot_id: options.boot_id.clone(),
        version: options.version.clone(),
        arch: std::env::consts::ARCH.into(),
        vcpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
        memory_mib: field(&meminfo, "MemTotal").split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0u64)
            / 1024,
        disk_gib: disk.map_or(0, |about| (about.blocks() as u64).saturating_mul(about.fragment_size() as u64) >> 30),
        hypervisor_type: "QEMU".into(),
        hypervisor_version,
        accel: choice.accel.name().into(),
        cpu_model: field(&cpuinfo, "model name"),
        address: options.address.clone(),
        volume_pool: None,
        warnings,
    }
}

/// The value of a line `name : value`.
fn field(text: &str, name: &str) -> String {
    let line = text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name);
    line.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

async fn qemu_version(options: &Options) -> Result<u64, String> {
    let asked = tokio::process::Command::new(&options.qemu).arg("--version").kill_on_drop(true).output();
    let output = match tokio::time::timeout(Duration::from_secs(10), asked).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("{} does not run: {error}", options.qemu.display())),
        Err(_) => return Err(format!("{} does not answer", options.qemu.display())),
    };
    parse_version(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| format!("{} does not say its version", options.qemu.display()))
}

/// `QEMU emulator version 7.2.22 (Debian …)` is 7,002,022.
fn parse_version(text: &str) -> Option<u64> {
    let version = text.split("version ").nth(1)?;
    let end = version.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(version.len());
    let mut parts = version[..end].split('.').map(|part| part.parse::<u64>().unwrap_or(0));
    let mut part = || parts.next().unwrap_or(0).min(999);
    Some(part() * 1_000_000 + part() * 1_000 + part())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg)\n"), Some(7_002_022));
        assert_eq!(parse_version("QEMU emulator version 10.0.2\n"), Some(10_000_002));
        assert_eq!(parse_version("hello"), None);
    }
}
