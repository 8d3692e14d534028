//! The state directory: what setup draws once and every process of the cloud reads.

use crate::settings::Settings;
use anyhow::{Context, Result};
use base::{CloudId, Env};
use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Drawn once; mode 0600, root's. The control process gets what it needs of it when it starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    pub cloud_id: CloudId,
    pub admin_password: String,
    pub demo_password: String,
    /// What secrets are sealed with in the store, oldest first: without these a copy of the store opens none.
    #[serde(default)]
    pub secret_keys: Vec<String>,
    /// The network namespace was made by nubo, so purge removes it.
    #[serde(default)]
    pub made_netns: Option<String>,
}

impl Setup {
    pub fn path(state: &Path) -> PathBuf {
        state.join("setup.json")
    }

    pub fn load(state: &Path) -> Result<Option<Setup>> {
        match fs::read(Setup::path(state)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).context("setup.json is damaged")?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("cannot read setup.json"),
        }
    }

    pub fn draw(env: &Env) -> Setup {
        Setup {
            cloud_id: CloudId::new(env.secret_hex(4)),
            admin_password: env.secret_hex(16),
            demo_password: env.secret_hex(16),
            secret_keys: vec![store::Secrets::draw(env)],
            made_netns: None,
        }
    }

    /// Draws what a setup of an older program lacks. True if anything was missing.
    pub fn complete(&mut self, env: &Env) -> bool {
        let missing = self.secret_keys.is_empty();
        if missing {
            self.secret_keys.push(store::Secrets::draw(env));
        }
        missing
    }

    /// What the control process reads at its start.
    pub fn bootstrap(&self) -> control::Bootstrap {
        control::Bootstrap {
            cloud_id: self.cloud_id.clone(),
            admin_password: self.admin_password.clone(),
            demo_password: self.demo_password.clone(),
            secret_keys: self.secret_keys.clone(),
        }
    }

    pub fn save(&self, state: &Path) -> Result<()> {
        write_private(&Setup::path(state), &serde_json::to_vec_pretty(self)?, None)
    }
}

/// The accounts under which control and guests run; named after the cloud, so that two clouds never share one.
#[derive(Clone, Copy, Debug)]
pub struct Accounts {
    pub control: (Uid, Gid),
    pub guests: (Uid, Gid),
    /// DHCP and metadata: what guests talk to must not be able to touch their processes.
    pub netd: (Uid, Gid),
}

impl Accounts {
    pub fn names(cloud: &CloudId) -> [String; 3] {
        ["ctl", "vm", "net"].map(|part| format!("nubo-{cloud}-{part}"))
    }

    pub fn find(cloud: &CloudId) -> Result<Option<Accounts>> {
        let [control, guests, netd] = Accounts::names(cloud);
        let find = |name: &str| nix::unistd::User::from_name(name).map(|user| user.map(|user| (user.uid, user.gid)));
        let all = (find(&control)?, find(&guests)?, find(&netd)?);
        let (Some(control), Some(guests), Some(netd)) = all else { return Ok(None) };
        Ok(Some(Accounts { control, guests, netd }))
    }

    /// Makes the accounts that are missing. Repeatable.
    pub fn ensure(cloud: &CloudId) -> Result<Accounts> {
        for name in Accounts::names(cloud) {
            if nix::unistd::User::from_name(&name)?.is_none() {
                let arguments = ["--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "--user-group", &name];
                run("useradd", &arguments)?;
            }
        }
        Accounts::find(cloud)?.context("the accounts were made but are not found")
    }

    pub fn remove(cloud: &CloudId) -> Result<()> {
        for name in Accounts::names(cloud) {
            if nix::unistd::User::from_name(&name)?.is_some() {
                run("userdel", &[&name])?;
            }
            if nix::unistd::Group::from_name(&name)?.is_some() {
                run("groupdel", &[&name])?;
            }
        }
        Ok(())
    }
}

/// Where the cloud's own copy of the program lies.
pub fn program(state: &Path) -> PathBuf {
    state.join("bin/nubo")
}

/// The directories of the state, with owner and mode. `run` is sticky: control may make files there, but cannot
/// replace those of root.
pub fn directories(state: &Path, accounts: &Accounts) -> Vec<(PathBuf, (Uid, Gid), u32)> {
    let (control, root) = (accounts.control, (Uid::from_raw(0), Gid::from_raw(0)));
    vec![
        (state.to_owned(), root, 0o755),
        (state.join("run"), (root.0, control.1), 0o1775),
        (state.join("log"), root, 0o755),
        (state.join("bin"), root, 0o755),
        (state.join("control"), control, 0o700),
        (state.join("control/images"), control, 0o700),
        (state.join("hosts"), root, 0o711),
    ]
}

/// Makes them. Repeatable.
pub fn make_directories(state: &Path, accounts: &Accounts) -> Result<()> {
    for (path, (uid, gid), mode) in directories(state, accounts) {
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        nix::unistd::chown(&path, Some(uid), Some(gid))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The person who ran the command, also through sudo: owner of clouds.yaml, openrc and the demo's key.
pub fn person() -> (Uid, Gid) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    match (number("SUDO_UID"), number("SUDO_GID")) {
        (Some(uid), Some(gid)) if nix::unistd::geteuid().is_root() => (Uid::from_raw(uid), Gid::from_raw(gid)),
        _ => (nix::unistd::getuid(), nix::unistd::getgid()),
    }
}

/// Writes a file of mode 0600 in one step, so that nobody ever reads half of it. An unchanged file is left alone.
pub fn write_private(path: &Path, bytes: &[u8], owner: Option<(Uid, Gid)>) -> Result<()> {
    if fs::read(path).is_ok_and(|known| known == bytes) {
        return Ok(());
    }
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    if let Some((uid, gid)) = owner {
        nix::unistd::chown(&temporary, Some(uid), Some(gid))?;
    }
    fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file of mode 0644 in one step. Never follows a link that somebody laid where the temporary file goes.
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
    file.write_all(bytes)?;
    fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}

/// `clouds.yaml` and `openrc` for an API at `url`.
pub fn write_clouds(settings: &Settings, setup: &Setup, url: &str, owner: (Uid, Gid)) -> Result<PathBuf> {
    let ca = settings.state.join("ca.pem");
    let ca = ca.exists().then(|| ca.display().to_string());
    let cloud = |name: &str, project: &str, password: &str| {
        let cacert = ca.as_ref().map_or(String::new(), |path| format!("    cacert: {path}\n"));
        format!(
            "  {name}:\n    auth:\n      auth_url: {url}/identity\n      username: {project}\n      \
             password: {password}\n      project_name: {project}\n      user_domain_id: default\n      \
             project_domain_id: default\n    region_name: RegionOne\n    identity_api_version: 3\n{cacert}"
        )
    };
    let yaml = format!(
        "clouds:\n{}{}",
        cloud("nubo", "admin", &setup.admin_password),
        cloud("demo", "demo", &setup.demo_password)
    );
    let mut rc = String::new();
    let variables = [
        ("AUTH_URL", format!("{url}/identity")),
        ("USERNAME", "admin".into()),
        ("PASSWORD", setup.admin_password.clone()),
        ("PROJECT_NAME", "admin".into()),
        ("USER_DOMAIN_ID", "default".into()),
        ("PROJECT_DOMAIN_ID", "default".into()),
        ("USER_DOMAIN_NAME", "Default".into()),
        ("PROJECT_DOMAIN_NAME", "Default".into()),
        ("REGION_NAME", "RegionOne".into()),
        ("IDENTITY_API_VERSION", "3".into()),
    ];
    for (name, value) in variables.into_iter().chain(ca.map(|path| ("CACERT", path))) {
        rc.push_str(&format!("export OS_{name}='{value}'\n"));
    }
    let path = settings.state.join("clouds.yaml");
    write_private(&path, yaml.as_bytes(), Some(owner))?;
    write_private(&settings.state.join("openrc"), rc.as_bytes(), Some(owner))?;
    Ok(path)
}

/// Runs a program to its end; its error output is the error.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = std::process::Command::new(program)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::bail!("{program} {}: {}", arguments.join(" "), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
