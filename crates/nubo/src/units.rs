//! Units for machines that systemd runs: control and agent with `Restart=always`, so that no supervisor of ours is
//! needed. `KillMode=process`: restarting the agent never touches a guest.

use crate::settings::Settings;
use crate::setup::{Accounts, run};
use anyhow::{Context, Result};
use base::CloudId;
use std::path::{Path, PathBuf};

const NAMES: [&str; 2] = ["control", "agent"];

/// True where systemd is the machine's first process.
pub fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

pub fn unit_name(cloud: &CloudId, name: &str) -> String {
    format!("nubo-{cloud}-{name}.service")
}

fn path(cloud: &CloudId, name: &str) -> PathBuf {
    Path::new("/etc/systemd/system").join(unit_name(cloud, name))
}

/// The text of one unit.
pub fn text(settings: &Settings, cloud: &CloudId, name: &str, program: &Path) -> String {
    let user = if name == "control" { Accounts::names(cloud)[0].clone() } else { "root".to_owned() };
    let mut environment = String::new();
    for (variable, value) in settings.environment() {
        environment
            .push_str(&format!("Environment=\"{variable}={}\"\n", value.replace('%', "%%").replace('"', "\\\"")));
    }
    let namespace =
        settings.netns.as_ref().map_or(String::new(), |name| format!("NetworkNamespacePath=/run/netns/{name}\n"));
    let state = settings.state.display();
    format!(
        "[Unit]\nDescription=nubo {name} of cloud {cloud}\nAfter=network.target\nStartLimitIntervalSec=0\n\n\
         [Service]\nExecStart={} {name} --state {state}\nUser={user}\n{environment}{namespace}\
         Restart=always\nRestartSec=100ms\nKillMode=process\nLimitNOFILE=65536\nTasksMax=infinity\nDelegate=yes\n\n\
         [Install]\nWantedBy=multi-user.target\n",
        program.display(),
    )
}

/// Writes and starts both units. Returns whether anything changed.
pub fn ensure(settings: &Settings, cloud: &CloudId) -> Result<bool> {
    let program = crate::setup::program(&settings.state);
    let mut changed = false;
    for name in NAMES {
        let (path, text) = (path(cloud, name), text(settings, cloud, name, &program));
        if std::fs::read_to_string(&path).is_ok_and(|known| known == text) {
            continue;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        changed = true;
    }
    if changed {
        run("systemctl", &["daemon-reload"])?;
    }
    for name in NAMES {
        run("systemctl", &["enable", "--now", &unit_name(cloud, name)])?;
    }
    Ok(changed)
}

/// Stops the units, where there are any.
pub fn stop(cloud: &CloudId) -> Result<()> {
    for name in NAMES.into_iter().filter(|name| path(cloud, name).exists()) {
        run("systemctl", &["disable", "--now", &unit_name(cloud, name)])?;
    }
    Ok(())
}

/// Takes the units away.
pub fn remove(cloud: &CloudId) -> Result<()> {
    let standing: Vec<_> = NAMES.into_iter().map(|name| path(cloud, name)).filter(|path| path.exists()).collect();
    for path in &standing {
        std::fs::remove_file(path)?;
    }
    if !standing.is_empty() {
        run("systemctl", &["daemon-reload"])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Flags;

    #[test]
    fn systemd_itself_finds_nothing_wrong_with_the_units() {
        let flags = Flags { state: Some("/var/lib/nubo".into()), ..Flags::default() };
        let settings = Settings::load(&flags).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in NAMES {
            // `verify` wants a user and a program that exist.
            let unit = text(&settings, &"0a1b2c3d".into(), name, Path::new("/bin/true"));
            assert!(unit.contains("KillMode=process") && unit.contains("Restart=always"));
            let file = folder.path().join(unit_name(&"0a1b2c3d".into(), name));
            std::fs::write(&file, unit.replace("User=nubo-0a1b2c3d-ctl", "User=nobody")).unwrap();
            let Ok(done) = std::process::Command::new("systemd-analyze").arg("verify").arg(&file).output() else {
                println!("SKIP systemd: systemd-analyze is not installed");
                return;
            };
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(done.status.success() && !said.contains("Unknown"), "{said}");
        }
    }
}
