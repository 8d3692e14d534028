//! `nubo up`: from nothing to a running cloud with its demo, and nothing at all where that stands already.

use crate::process::{self, wait_until};
use crate::progress::Progress;
use crate::settings::Settings;
use crate::setup::{self, Accounts, Setup};
use crate::{client, demo, lock, netns, tls, units};
use anyhow::{Context, Result, bail};
use base::Env;
use hyper::Method;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long control and agent may take to be ready.
const READY: Duration = Duration::from_secs(60);

pub fn main(settings: &Settings) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("`nubo up` wires networks and starts guests, so it needs root: sudo nubo up");
    }
    let progress = Progress::new();
    progress.say(&format!("nubo {} in {}", env!("CARGO_PKG_VERSION"), settings.state.display()));
    let _lock = lock::take(&settings.state, || {
        progress.say("  waits   for another `nubo up`, `down` or `purge` of this state to end");
    })?;
    let mut setup = ensure_setup(settings, &progress)?;
    let image = ensure_image(settings, &progress)?;
    if let Some(name) = &settings.netns {
        if !netns::exists(name) {
            // Written first: a namespace that is made and not noted would outlive `nubo purge`.
            setup.made_netns = Some(name.clone());
            setup.save(&settings.state)?;
        }
        netns::ensure(name)?;
        netns::enter(name)?;
    }
    check_external(settings, &setup)?;
    let accounts = Accounts::ensure(&setup.cloud_id)?;
    setup::make_directories(&settings.state, &accounts)?;
    write_control_files(settings, &setup, &accounts)?;
    ensure_program(settings, &setup, &progress)?;
    ensure_supervisor(settings, &setup, &progress)?;
    let url = wait_ready(settings, &progress)?;
    setup::write_clouds(settings, &setup, &url, setup::person())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let demo = runtime.block_on(async {
        wait_host(settings, &setup, &url, &progress).await?;
        demo::make(settings, &setup, &url, &image, &progress).await
    })?;
    print_end(settings, &url, &demo, &progress);
    Ok(())
}

fn ensure_setup(settings: &Settings, progress: &Progress) -> Result<Setup> {
    if let Some(mut setup) = Setup::load(&settings.state)? {
        if setup.complete(&Env::system()) {
            setup.save(&settings.state)?;
        }
        progress.stands(&format!("cloud {}", setup.cloud_id));
        return Ok(setup);
    }
    std::fs::create_dir_all(&settings.state).with_context(|| format!("cannot make {}", settings.state.display()))?;
    let setup = Setup::draw(&Env::system());
    setup.save(&settings.state)?;
    progress.say(&format!("  made    cloud {}", setup.cloud_id));
    Ok(setup)
}

fn ensure_image(settings: &Settings, progress: &Progress) -> Result<PathBuf> {
    let path = settings.state.join("tiny.qcow2");
    if path.exists() {
        progress.stands("image file tiny.qcow2");
        return Ok(path);
    }
    let step = progress.step("image file tiny.qcow2");
    crate::build_tiny(&path)?;
    step.done();
    Ok(path)
}

/// The external network must not cover a route of the machine, unless it is our own bridge's.
fn check_external(settings: &Settings, setup: &Setup) -> Result<()> {
    let underlay = netlink::Netns::current()?;
    let cidr = settings.external_cidr.into();
    let conflicts = agent::net::external_conflicts(&underlay, cidr, Some(&setup.cloud_id))?;
    if let Some(conflict) = conflicts.first() {
        bail!("the external network {cidr} clashes: {conflict}. Cure: NUBO_EXTERNAL_CIDR=another network");
    }
    Ok(())
}

/// What the control process reads at its start, since it cannot read root's files.
pub fn write_control_files(settings: &Settings, setup: &Setup, accounts: &Accounts) -> Result<()> {
    let directory = settings.state.join("control");
    if !settings.listen.ip().is_loopback() {
        tls::ensure(&settings.state, &directory, settings.listen.ip(), &[])?;
        for name in ["tls.pem", "tls.key"] {
            nix::unistd::chown(&directory.join(name), Some(accounts.control.0), Some(accounts.control.1))?;
        }
    }
    let bootstrap = serde_json::to_vec_pretty(&setup.bootstrap())?;
    setup::write_private(&directory.join("bootstrap.json"), &bootstrap, Some(accounts.control))
}

/// Puts this program where every account may run it: a home directory is closed to control's. Another version there is
/// replaced, and control and agent start anew with it; guests do not notice.
pub fn ensure_program(settings: &Settings, setup: &Setup, progress: &Progress) -> Result<()> {
    let (own, place) = (std::env::current_exe()?, setup::program(&settings.state));
    let bytes = std::fs::read(&own).with_context(|| format!("cannot read {}", own.display()))?;
    if own == place || std::fs::read(&place).is_ok_and(|known| known == bytes) {
        return Ok(());
    }
    if place.exists() {
        crate::stop::processes(settings, setup)?;
        progress.say("  made    another version of the program; control and agent start anew");
    }
    let temporary = place.with_extension("new");
    std::fs::write(&temporary, bytes)?;
    std::fs::set_permissions(&temporary, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    std::fs::rename(&temporary, &place).with_context(|| format!("cannot write {}", place.display()))
}

pub fn ensure_supervisor(settings: &Settings, setup: &Setup, progress: &Progress) -> Result<()> {
    if units::systemd_runs() {
        let changed = units::ensure(settings, &setup.cloud_id)?;
        progress.say(if changed { "  made    units of systemd" } else { "  stands  units of systemd" });
        return Ok(());
    }
    if process::find(&settings.run().join("supervisor.pid"), "supervise", &settings.state).is_some() {
        progress.stands("supervisor");
        return Ok(());
    }
    let log = settings.state.join("log/supervisor.log");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
    let mut command = Command::new(setup::program(&settings.state));
    command
        .args(["supervise", "--state"])
        .arg(&settings.state)
        .envs(settings.environment())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/");
    let mut child = command.spawn().context("cannot start nubo supervise")?;
    let stands = || process::find(&settings.run().join("supervisor.pid"), "supervise", &settings.state).is_some();
    let mut ended = None;
    wait_until(READY, || {
        ended = child.try_wait().ok().flatten();
        ended.is_some() || stands()
    });
    if ended.is_some() || !stands() {
        bail!("the supervisor does not start: see {}/log/supervisor.log", settings.state.display());
    }
    progress.say("  made    supervisor");
    Ok(())
}

fn wait_ready(settings: &Settings, progress: &Progress) -> Result<String> {
    let step = progress.step("control and agent are ready");
    let file = |name: &str| settings.run().join(name);
    let both =
        || ["control", "agent"].iter().all(|n| process::find(&file(&format!("{n}.pid")), n, &settings.state).is_some());
    if !wait_until(READY, both) {
        bail!("control or agent does not get ready: see {}/log", settings.state.display());
    }
    let url = std::fs::read_to_string(file("url")).context("control is ready but wrote no run/url")?;
    step.done();
    Ok(url.trim().to_owned())
}

/// A server can be placed once the host's session stands.
async fn wait_host(settings: &Settings, setup: &Setup, url: &str, progress: &Progress) -> Result<()> {
    let step = progress.step("host is up");
    let login = client::Login {
        auth_url: format!("{url}/identity"),
        user: "admin".into(),
        password: setup.admin_password.clone(),
        project: "admin".into(),
        ca: Some(settings.state.join("ca.pem")).filter(|path| path.exists()),
    };
    let admin = client::Client::login(&login).await?;
    let until = tokio::time::Instant::now() + READY;
    loop {
        let answer = admin.try_call(Method::GET, "compute", "/os-hypervisors/detail", None).await?;
        let hosts = answer.json()?;
        if hosts["hypervisors"].as_array().into_iter().flatten().any(|host| host["state"] == "up") {
            step.done();
            return Ok(());
        }
        if tokio::time::Instant::now() > until {
            bail!("the host does not come up: see {}/log/agent.log", settings.state.display());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn print_end(settings: &Settings, url: &str, demo: &demo::Demo, progress: &Progress) {
    let prefix = settings.command_prefix();
    let state = settings.state.display();
    if !demo.changed {
        progress.say("Everything stands; nothing was changed.");
    }
    progress.say("");
    progress.say(&format!(
        "{prefix}ssh -i {state}/demo.key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null nubo@{}",
        demo.address
    ));
    progress.say(&format!("API: {url}"));
    progress.say(&format!("export OS_CLIENT_CONFIG_FILE={state}/clouds.yaml"));
    progress.say("export OS_CLOUD=nubo");
    progress.say(&format!("{prefix}openstack server list --all-projects"));
}

/// Where a state directory's image lies; for `nubo image build tiny` without an output.
pub fn default_image(state: &Path) -> PathBuf {
    state.join("tiny.qcow2")
}
