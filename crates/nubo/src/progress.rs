//! What a person sees while steps go on: a line a step, with the time of those that took over a second.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub struct Progress {
    terminal: bool,
}

/// A step that goes on. Dropped without [`Step::done`] it has failed.
pub struct Step {
    name: String,
    began: Instant,
    finished: Arc<AtomicBool>,
    ok: bool,
}

impl Progress {
    pub fn new() -> Progress {
        Progress { terminal: std::io::stdout().is_terminal() }
    }

    pub fn say(&self, line: &str) {
        println!("{line}");
    }

    pub fn stands(&self, what: &str) {
        println!("  stands  {what}");
    }

    /// Begins a step; after a second, and then every five, a line says that it goes on.
    pub fn step(&self, name: &str) -> Step {
        let finished = Arc::new(AtomicBool::new(false));
        let (label, flag, terminal) = (name.to_owned(), finished.clone(), self.terminal);
        let began = Instant::now();
        std::thread::spawn(move || {
            let mut next = Duration::from_secs(1);
            while !flag.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(50));
                if began.elapsed() >= next && !flag.load(Ordering::SeqCst) {
                    let seconds = began.elapsed().as_secs();
                    let end = if terminal { "\r" } else { "\n" };
                    print!("  …       {label} ({seconds} s){end}");
                    let _ = std::io::stdout().flush();
                    next += Duration::from_secs(if terminal { 1 } else { 5 });
                }
            }
        });
        Step { name: name.to_owned(), began, finished, ok: false }
    }
}

impl Step {
    pub fn done(mut self) {
        self.ok = true;
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.finished.store(true, Ordering::SeqCst);
        let seconds = self.began.elapsed().as_secs_f64();
        let word = if self.ok { "done  " } else { "failed" };
        let time = if seconds > 1.0 { format!(" ({seconds:.1} s)") } else { String::new() };
        println!("  {word}  {}{time}", self.name);
    }
}
