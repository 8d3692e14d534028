//! `nubo agent`: guests and networks of this host, as root.

use crate::settings::Settings;
use crate::setup::{self, Accounts, Setup};
use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

pub fn main(settings: &Settings) -> Result<()> {
    let setup = Setup::load(&settings.state)?.context("the cloud is not set up: run `nubo up` first")?;
    let accounts = Accounts::find(&setup.cloud_id)?.context("the cloud's accounts are missing: run `nubo up`")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let options = agent::Options {
            state: settings.state.clone(),
            cloud_id: setup.cloud_id.clone(),
            guest_uid: accounts.guests.0.as_raw(),
            guest_gid: accounts.guests.1.as_raw(),
            accel: settings.accel.clone(),
            host: host_name(),
        };
        let running = agent::start(options).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        let pid = std::process::id().to_string();
        setup::write_public(&settings.run().join("agent.pid"), pid.as_bytes())?;
        let mut term = signal(SignalKind::terminate())?;
        tokio::select! {
            () = running.serve() => {}
            _ = term.recv() => {}
        }
        Ok(())
    })
}

/// The machine's name, cut to what a host's name may be.
fn host_name() -> base::HostName {
    let name = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().to_lowercase();
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).take(63).collect();
    base::HostName::new(if name.is_empty() { "localhost".to_owned() } else { name })
}
