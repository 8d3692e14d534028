//! Memory that guests share, by this machine's own kernel.

use crate::fixture::{Fixture, missing, spec, wait_for};
use agent_api::{HostAgent, ObservedPower, SharingSetting};
use std::path::Path;

/// The kernel's switch as it stood, put back whatever happens.
struct Switch([(&'static str, String); 3]);

impl Switch {
    fn read() -> [(&'static str, String); 3] {
        let value = |name| std::fs::read_to_string(Path::new(agent::ksm::FOLDER).join(name)).unwrap_or_default();
        ["run", "pages_to_scan", "sleep_millisecs"].map(|name| (name, value(name)))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        for (name, value) in &self.0 {
            let _ = std::fs::write(Path::new(agent::ksm::FOLDER).join(name), value);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_of_one_image_share_memory_and_the_saving_is_told() {
    let Some(mut fixture) = Fixture::new("ksm").await else { return };
    let writable = std::fs::File::options().write(true).open(Path::new(agent::ksm::FOLDER).join("run"));
    if let Err(error) = writable {
        missing("ksm", &format!("this kernel's KSM cannot be switched: {error}"));
        return;
    }
    let before = Switch(Switch::read());
    fixture.ksm = SharingSetting::On;
    let agent = fixture.agent().await;
    let specs = [spec(1), spec(2)];
    for spec in &specs {
        fixture.put(&agent, spec).await;
        fixture.until(&agent, spec, ObservedPower::Running).await;
        let process = fixture.process(spec).unwrap();
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", process.pid)).unwrap();
        assert!(line.contains("mem-merge=on"), "{line}");
    }
    let seen = || agent.memory_sharing().unwrap();
    assert!(seen().runs);
    // A guest of 128 MiB has some 30 MiB that the other one has as well, and zeros besides.
    wait_for("20 MiB of shared memory", || seen().saved_bytes > 20 << 20).await;

    // Guests go on, and the host is as it was.
    agent.put_back().unwrap();
    assert_eq!(Switch::read(), before.0);
    assert!(!fixture.state().join("hosts/ksm.json").exists());
    assert!(specs.iter().all(|spec| fixture.process(spec).is_some()));
}
