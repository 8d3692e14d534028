//! Where systemd runs, each guest is a transient scope of its own: it belongs to no unit of ours, so that whatever is
//! done to those never touches it, and `systemctl` shows it with what it uses. A scope goes with its last process.

use base::{CloudId, ServerId};
use std::io;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// How systemd is asked.
#[derive(Clone, Debug)]
pub struct Scopes {
    cloud: CloudId,
    busctl: PathBuf,
}

impl Scopes {
    /// None where systemd is not the machine's first process.
    pub fn detect(cloud: &CloudId) -> Option<Scopes> {
        let runs = Path::new("/run/systemd/system").is_dir();
        runs.then(|| Scopes { cloud: cloud.clone(), busctl: "busctl".into() })
    }

    /// `nubo-CLOUD-SERVER.scope`.
    pub fn name(&self, id: &ServerId) -> String {
        format!("nubo-{}-{id}.scope", self.cloud)
    }

    /// Moves the process into the guest's scope, where it is not there yet.
    pub async fn ensure(&self, id: &ServerId, pid: i32, vcpus: u32) -> io::Result<()> {
        let name = self.name(id);
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        if groups.lines().any(|line| line.ends_with(&format!("/{name}"))) {
            return Ok(());
        }
        let asked = Command::new(&self.busctl).args(arguments(&name, pid, vcpus)).output().await?;
        if asked.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&asked.stderr).trim().to_owned()))
    }
}

/// `StartTransientUnit(name, mode, properties, auxiliary units)`, as org.freedesktop.systemd1(5) has it.
fn arguments(name: &str, pid: i32, vcpus: u32) -> Vec<String> {
    let weight = (100 * u64::from(vcpus)).clamp(1, 10_000);
    let tasks = crate::cgroup::TASKS + u64::from(vcpus);
    let call = "call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \
                StartTransientUnit ssa(sv)a(sa(sv))";
    let properties = format!(
        "5 PIDs au 1 {pid} CPUWeight t {weight} TasksMax t {tasks} CollectMode s inactive-or-failed Description s"
    );
    let mut words: Vec<String> = call.split_whitespace().map(str::to_owned).collect();
    words.extend([name.to_owned(), "fail".to_owned()]);
    words.extend(properties.split(' ').map(str::to_owned));
    words.extend(["A server of nubo".to_owned(), "0".to_owned()]);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that writes its words into a file, one a line, and ends as told.
    fn recorder(folder: &Path, status: u8) -> Scopes {
        let path = folder.join("busctl");
        let said = folder.join("said");
        let text =
            format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > {}\necho 'Unit exists.' >&2\nexit {status}\n", said.display());
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Scopes { cloud: "0a1b2c3d".into(), busctl: path }
    }

    #[tokio::test]
    async fn a_process_is_moved_with_its_limits() {
        let folder = tempfile::tempdir().unwrap();
        let pid = std::process::id() as i32;
        recorder(folder.path(), 0).ensure(&"s-1".into(), pid, 2).await.unwrap();
        let said = std::fs::read_to_string(folder.path().join("said")).unwrap();
        let words: Vec<&str> = said.lines().collect();
        // The words after the signature: name, mode, five properties, no auxiliary units.
        let at = words.iter().position(|word| *word == "ssa(sv)a(sa(sv))").unwrap();
        let pid = pid.to_string();
        let expected = ["nubo-0a1b2c3d-s-1.scope", "fail", "5", "PIDs", "au", "1", &pid, "CPUWeight", "t", "200"];
        assert_eq!(words[at + 1..at + 11], expected);
        assert_eq!(words[at + 11..at + 14], ["TasksMax", "t", "514"]);
        assert_eq!(words[words.len() - 2..], ["A server of nubo", "0"]);
    }

    #[tokio::test]
    async fn a_refusal_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let refused = recorder(folder.path(), 1).ensure(&"s-1".into(), std::process::id() as i32, 1).await;
        assert_eq!(refused.unwrap_err().to_string(), "Unit exists.");
    }
}
