//! `nubo agent`: guests and networks of this host, as root.

use crate::settings::Settings;
use crate::setup::{self, Accounts, Setup};
use agent::net::{Bridge, ServiceOptions};
use agent::{Agent, HttpLink};
use anyhow::{Context, Result, anyhow};
use base::{Env, HostName};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

pub fn main(settings: &Settings) -> Result<()> {
    crate::supervise::own_session();
    let setup = Setup::load(&settings.state)?.context("the cloud is not set up: run `nubo up` first")?;
    let accounts = Accounts::find(&setup.cloud_id)?.context("the cloud's accounts are missing: run `nubo up`")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(settings, &setup, &accounts))
}

async fn serve(settings: &Settings, setup: &Setup, accounts: &Accounts) -> Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let env = Env::system();
    let control_uid = accounts.control.0.as_raw();
    let link = Arc::new(HttpLink::new(&settings.run(), Some(control_uid)));
    let mut network = agent::net::Options::new(setup.cloud_id.clone(), netlink::Netns::current()?);
    network.services = Some(netd(settings, accounts)?);
    let wiring = Arc::new(Bridge::start(network).map_err(|error| anyhow!("the networks: {error}"))?);
    let mut options = agent::Options::new(settings.state.clone(), setup.cloud_id.clone(), host_name());
    options.accel = settings.accel.clone();
    options.ksm = settings.memory_sharing()?;
    options.guest_user = Some((accounts.guests.0.as_raw(), accounts.guests.1.as_raw()));
    // Tests of a host's reboot cannot reboot the machine: they name another boot.
    if let Ok(boot_id) = std::env::var("NUBO_BOOT_ID") {
        options.boot_id = boot_id;
    }
    let bridge = wiring.clone();
    let mut again = signal(SignalKind::hangup())?;
    let agent = Agent::start(options, env.clone(), wiring, link.clone()).await.map_err(|error| anyhow!(error))?;
    let agent = Arc::new(agent);
    setup::write_public(&settings.run().join("agent.pid"), std::process::id().to_string().as_bytes())?;
    // SIGHUP: somebody (fsck) says that something on this host is not as we left it.
    let look_again = async {
        while again.recv().await.is_some() {
            tracing::info!("looking at everything again");
            bridge.repair().await;
            agent.look_again().await;
        }
    };
    tokio::select! {
        () = agent::run(agent.clone(), link, env) => {}
        () = look_again => {}
        _ = term.recv() => {}
    }
    // In good order: guests go on, but what this agent switched on their host goes with it.
    agent.put_back().context("the host's KSM")
}

fn netd(settings: &Settings, accounts: &Accounts) -> Result<ServiceOptions> {
    let program = setup::program(&settings.state).display().to_string();
    let (uid, gid) = (accounts.netd.0.to_string(), accounts.netd.1.to_string());
    let state = settings.state.display().to_string();
    let command = [program, "netd".into(), "--state".into(), state, "--uid".into(), uid, "--gid".into(), gid];
    Ok(ServiceOptions {
        socket: settings.run().join("netd.sock"),
        command: command.to_vec(),
        log: Some(settings.state.join("log/netd.log")),
    })
}

/// The machine's name, cut to what a host's name may be.
pub fn host_name() -> HostName {
    let name = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().to_lowercase();
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).take(63).collect();
    HostName::new(if name.is_empty() { "localhost".to_owned() } else { name })
}
