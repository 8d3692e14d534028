//! What a history's thread said in distress: panics, and errors in the log.

use std::cell::RefCell;
use std::io::Write;

thread_local! {
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What was said first since the last look.
pub fn take() -> Option<String> {
    SAID.with(|said| said.borrow_mut().take())
}

fn say(what: String) {
    SAID.with(|said| {
        said.borrow_mut().get_or_insert(what);
    });
}

/// Hears panics and errors of all threads from now on; `log` prints the log of a level and above, too.
pub fn listen(log: Option<tracing::Level>) {
    std::panic::set_hook(Box::new(|info| say(format!("panic: {info}"))));
    let level = log.unwrap_or(tracing::Level::ERROR);
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).without_time();
    // A second call in one process changes nothing.
    let _ =
        tracing::subscriber::set_global_default(subscriber.with_writer(move || Ear { print: log.is_some() }).finish());
}

struct Ear {
    print: bool,
}

impl Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        if line.trim_start().starts_with("ERROR") && !line.contains(crate::DEAD) {
            say(line.trim().to_owned());
        }
        if self.print {
            std::io::stderr().write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
