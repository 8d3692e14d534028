//! An agent alone, for this crate's tests that kill it: the program `nubo` has one by `nubo agent`.
//!
//! Lines of standard input are objects of the view; lines of standard output are reports, a whole one first. It ends
//! with its input, so that none outlives a test.

use agent::{Agent, NoWiring, Options};
use agent_api::{BoxStream, ControlLink, HostAgent, LinkError, PollAnswer, PollRequest, Report, ViewDelta, ViewObject};
use async_trait::async_trait;
use base::{Env, HostName, ImageId};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// Control, as far as guests see it: one image.
struct Control(PathBuf);

#[async_trait]
impl ControlLink for Control {
    async fn poll(&self, _request: PollRequest) -> Result<PollAnswer, LinkError> {
        std::future::pending().await
    }
    async fn report(&self, _report: Report) -> Result<(), LinkError> {
        Ok(())
    }
    async fn answer_bytes(&self, _: &HostName, _: &str, _: Result<Vec<u8>, String>) -> Result<(), LinkError> {
        Ok(())
    }
    async fn answer_stream(&self, _: &HostName, _: &str, _: Result<BoxStream, String>) -> Result<(), LinkError> {
        Ok(())
    }
    async fn image(&self, _: &HostName, _: &ImageId) -> Result<File, LinkError> {
        File::open(&self.0).map_err(|error| LinkError(error.to_string()))
    }
}

async fn report(agent: Arc<Agent>) {
    let mut whole = true;
    loop {
        let said = agent.observe(whole).await;
        whole = false;
        let Ok(line) = serde_json::to_string(&said) else { return };
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), String> {
    let word = |name: &str| std::env::var(name).map_err(|error| format!("{name}: {error}"));
    let user: u32 = word("AGENT_GUEST_UID")?.parse().map_err(|_| "AGENT_GUEST_UID is no number")?;
    let options = Options {
        guest_user: Some((user, user)),
        boot_id: word("AGENT_BOOT_ID")?,
        accel: "tcg".into(),
        ..Options::new(word("AGENT_STATE")?.into(), word("AGENT_CLOUD")?.into(), "host-1".into())
    };
    let link = Arc::new(Control(word("AGENT_IMAGE")?.into()));
    let agent = Arc::new(Agent::start(options, Env::system(), Arc::new(NoWiring), link).await?);
    let reports = tokio::spawn(report(agent.clone()));
    let (sender, mut lines) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = lines.recv().await {
        let object: ViewObject = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        agent.apply(ViewDelta { version: 1, whole: false, put: vec![object], remove: Vec::new() }).await?;
    }
    reports.abort();
    Ok(())
}
