//! `nubo up --simulated-hosts N`: a whole cloud in one process, without root and without touching the network.

use crate::control_command;
use crate::settings::Settings;
use crate::setup::{self, Setup};
use anyhow::{Context, Result, bail};
use base::{Env, HostName};
use control::Cloud;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const MOST: u32 = 10_000;

/// Removes a temporary state at the end, also when something fails.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

pub fn main(settings: &Settings, count: u32, named_state: bool) -> Result<()> {
    if count == 0 || count > MOST {
        bail!("--simulated-hosts takes 1 to {MOST}");
    }
    let mut settings = settings.clone();
    let mut temporary = Temporary(None);
    if !named_state {
        settings.state = std::env::temp_dir().join(format!("nubo-{}", Env::system().secret_hex(6)));
        temporary.0 = Some(settings.state.clone());
    }
    for directory in ["run", "control/images"] {
        let path = settings.state.join(directory);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    let mut setup = match Setup::load(&settings.state)? {
        Some(setup) => setup,
        None => Setup::draw(&Env::system()),
    };
    setup.complete(&Env::system());
    setup.save(&settings.state)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(&settings, &setup, count))
}

async fn serve(settings: &Settings, setup: &Setup, count: u32) -> Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let explicit = std::env::var_os("NUBO_LISTEN").is_some() || settings.listen.port() != 8774;
    let listen = if explicit { settings.listen } else { ([127, 0, 0, 1], 0).into() };
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen at {listen}"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let bootstrap = setup.bootstrap();
    let public_url = settings.public_url.clone().unwrap_or_else(|| url.clone());
    let env = Env::system();
    let options = control_command::options(settings, public_url, bootstrap)?;
    let cloud = Cloud::open(options, env.clone()).await.map_err(|fault| anyhow::anyhow!(fault.chain()))?;
    for n in 1..=count {
        let options = simhost::Options::new(HostName::new(format!("sim-{n:05}")));
        tokio::spawn(control::host(Arc::new(simhost::SimHost::new(env.clone(), options)), cloud.link()));
    }
    let public = tokio::spawn(control::serve(cloud.clone(), listener, None));
    cloud.wait_hosts(count as usize).await;
    let clouds = setup::write_clouds(settings, setup, &url, setup::person())?;
    setup::write_public(&settings.run().join("url"), format!("{url}\n").as_bytes())?;
    println!("ready {url} {}", clouds.display());
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
        _ = public => {}
    }
    Ok(())
}
