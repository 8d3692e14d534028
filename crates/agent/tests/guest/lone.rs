//! An agent in a process of its own, which can be killed as only processes are.

use crate::fixture::{self, Fixture};
use agent_api::{GuestObserved, Report, ViewObject, VolumeObserved};
use base::{ServerId, VolumeId};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Seen {
    guests: BTreeMap<ServerId, GuestObserved>,
    volumes: BTreeMap<VolumeId, VolumeObserved>,
}

pub struct Lone {
    child: Child,
    stdin: ChildStdin,
    seen: Arc<Mutex<Seen>>,
}

impl Drop for Lone {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Lone {
    pub fn start(fixture: &Fixture) -> Lone {
        let mut child = Command::new(env!("CARGO_BIN_EXE_agent-lone"))
            .env("AGENT_STATE", fixture.state())
            .env("AGENT_CLOUD", fixture.cloud.as_str())
            .env("AGENT_BOOT_ID", &fixture.boot_id)
            .env("AGENT_IMAGE", &fixture.image)
            .env("AGENT_GUEST_UID", fixture::NOBODY.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let told = seen.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The last line of one that was killed may be cut off.
                let Ok(report) = serde_json::from_str::<Report>(&line) else { return };
                let mut seen = told.lock().unwrap();
                seen.guests.extend(report.guests.into_iter().map(|it| (it.id.clone(), it)));
                seen.volumes.extend(report.volumes.into_iter().map(|it| (it.id.clone(), it)));
            }
        });
        Lone { child, stdin, seen }
    }

    pub fn put(&mut self, object: &ViewObject) {
        writeln!(self.stdin, "{}", serde_json::to_string(object).unwrap()).unwrap();
    }

    /// By `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn guest(&self, id: &ServerId) -> Option<GuestObserved> {
        self.seen.lock().unwrap().guests.get(id).cloned()
    }

    pub fn volume(&self, id: &VolumeId) -> Option<VolumeObserved> {
        self.seen.lock().unwrap().volumes.get(id).cloned()
    }
}
