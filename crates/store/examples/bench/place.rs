//! Where the kernel lets a client and its server run. On one processor, a question and its answer are two switches; on
//! two, each wakes the other processor, which costs four times as much. The kernel decides that for each connection by
//! itself, so a store and its reference can only be compared where both have the same place.

use std::process::{Command, id};
use std::sync::Arc;
use std::thread::available_parallelism;

/// The server that a store has, if it is not in this process.
pub type Server = Option<Arc<testkit::Postgres>>;

#[derive(Clone, Copy)]
pub enum Place {
    Anywhere,
    /// Client and server on the first processor.
    Together,
    /// The client on the first processor, the server on the second.
    Apart,
}

/// Lets all run anywhere again when it goes.
pub struct Held {
    connections: Vec<String>,
    /// All processors that this process may use, counted before it was held to one.
    all: String,
}

impl Place {
    /// Both places where there are a server, two processors and `taskset`; else wherever the kernel likes.
    pub fn all(server: &Server) -> &'static [Place] {
        let able = || Command::new("taskset").arg("--version").output().is_ok() && processors() > 1;
        if server.is_some() && able() { &[Place::Together, Place::Apart] } else { &[Place::Anywhere] }
    }

    pub fn hold(self, server: &Server) -> Option<Held> {
        let processor = match self {
            Place::Anywhere => return None,
            Place::Together => "0",
            Place::Apart => "1",
        };
        let listed = server.as_ref()?.sql("postgres", "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()");
        let connections: Vec<String> = listed.lines().map(str::to_owned).collect();
        let all = format!("0-{}", processors() - 1);
        put(&id().to_string(), "0");
        connections.iter().for_each(|process| put(process, processor));
        Some(Held { connections, all })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connections.iter().chain([&id().to_string()]).for_each(|process| put(process, &self.all));
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Place::Anywhere => "",
            Place::Together => ", client and server on one processor",
            Place::Apart => ", client and server on two",
        })
    }
}

fn processors() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// All threads of a process on these processors. One that has ended meanwhile is no matter.
fn put(process: &str, processors: &str) {
    let _ = Command::new("taskset").args(["-a", "-p", "-c", processors, process]).output();
}
