//! The QEMU Machine Protocol: JSON lines over a Unix socket.
//!
//! One task reads; commands are matched by id. Events carry no data to the caller, only that something has changed
//! since: a guest can cause many of them, and asking for the state again loses nothing. Structures are tolerant, since
//! the schema differs between releases.

use crate::{Error, Result};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};

/// The most bytes of a line that QEMU may send.
const LINE_BYTES: usize = 4 << 20;
/// How long a command may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the greeting may take: a QEMU that has just been started under load.
const GREETING: Duration = Duration::from_secs(30);

type Answers = Mutex<HashMap<u64, oneshot::Sender<Value>>>;

/// A connection to a monitor; closed when dropped.
pub struct Qmp {
    stream: Arc<UnixStream>,
    waiting: Arc<Answers>,
    writing: tokio::sync::Mutex<u64>,
    changes: watch::Receiver<u64>,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Qmp {
    /// Waits for the greeting and leaves the mode of capabilities.
    pub async fn open(stream: UnixStream) -> Result<Qmp> {
        let stream = Arc::new(stream);
        let mut lines = Lines { stream: stream.clone(), buffer: Vec::new(), scanned: 0 };
        let greeting = tokio::time::timeout(GREETING, lines.next()).await;
        let greeting = greeting.map_err(|_| Error::Timeout("the greeting".into()))??;
        if greeting.get("QMP").is_none() {
            return Err(Error::Protocol(format!("no greeting: {greeting}")));
        }
        let waiting: Arc<Answers> = Arc::default();
        let (changed, changes) = watch::channel(0);
        let reader = tokio::spawn(read(lines, waiting.clone(), changed));
        let qmp = Qmp { stream, waiting, writing: tokio::sync::Mutex::new(0), changes, reader };
        qmp.call("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Counts events; ends when the connection does.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    pub async fn call(&self, command: &str, arguments: Value) -> Result<Value> {
        self.call_with(command, arguments, None).await
    }

    /// Calls a command together with a file, as `getfd` wants it.
    pub async fn call_with(&self, command: &str, arguments: Value, file: Option<BorrowedFd<'_>>) -> Result<Value> {
        let (answer, answered) = oneshot::channel();
        let id = {
            // A line that is cut off by cancelling would spoil the next one, so lines are written in one piece.
            let mut last = self.writing.lock().await;
            *last += 1;
            let mut line = json!({"execute": command, "id": *last});
            if arguments.as_object().is_some_and(|fields| !fields.is_empty()) {
                line["arguments"] = arguments;
            }
            self.waiting.lock().unwrap_or_else(|broken| broken.into_inner()).insert(*last, answer);
            self.send(&format!("{line}\n"), file).await?;
            *last
        };
        let answered = tokio::time::timeout(ANSWER, answered).await;
        let forget = || self.waiting.lock().unwrap_or_else(|broken| broken.into_inner()).remove(&id);
        match answered {
            Ok(Ok(mut value)) => match value.get_mut("error") {
                None => Ok(value["return"].take()),
                Some(error) => Err(Error::Refused {
                    command: command.to_owned(),
                    class: error["class"].as_str().unwrap_or_default().to_owned(),
                    desc: error["desc"].as_str().unwrap_or_default().to_owned(),
                }),
            },
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => {
                forget();
                Err(Error::Timeout(command.to_owned()))
            }
        }
    }

    async fn send(&self, line: &str, file: Option<BorrowedFd<'_>>) -> Result<()> {
        let raw: Vec<_> = file.iter().map(|file| file.as_raw_fd()).collect();
        let mut rest = line.as_bytes();
        let mut first = true;
        while !rest.is_empty() {
            let rights = [ControlMessage::ScmRights(&raw)];
            let control = if first && !raw.is_empty() { &rights[..] } else { &[] };
            let sent = self.stream.async_io(Interest::WRITABLE, || {
                let part = [IoSlice::new(rest)];
                sendmsg::<UnixAddr>(self.stream.as_raw_fd(), &part, control, MsgFlags::MSG_NOSIGNAL, None)
                    .map_err(io::Error::from)
            });
            let sent = tokio::time::timeout(ANSWER, sent).await;
            match sent {
                Ok(Ok(sent)) => rest = &rest[sent..],
                Ok(Err(_)) => return Err(Error::Closed),
                Err(_) => return Err(Error::Timeout("a command to be taken".into())),
            }
            first = false;
        }
        Ok(())
    }
}

/// Reads until the connection ends; then every waiting caller and watcher learns it by its sender's end.
async fn read(mut lines: Lines, waiting: Arc<Answers>, changed: watch::Sender<u64>) {
    while let Ok(value) = lines.next().await {
        if let Some(event) = value.get("event") {
            tracing::trace!(%event, "QEMU event");
            changed.send_modify(|count| *count += 1);
        } else if let Some(id) = value.get("id").and_then(Value::as_u64) {
            let sender = waiting.lock().unwrap_or_else(|broken| broken.into_inner()).remove(&id);
            if let Some(sender) = sender {
                let _ = sender.send(value);
            }
        }
    }
    waiting.lock().unwrap_or_else(|broken| broken.into_inner()).clear();
}

struct Lines {
    stream: Arc<UnixStream>,
    buffer: Vec<u8>,
    scanned: usize,
}

impl Lines {
    async fn next(&mut self) -> Result<Value> {
        loop {
            if let Some(at) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.scanned + at + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                self.scanned = 0;
                return serde_json::from_slice(&line).map_err(|error| Error::Protocol(error.to_string()));
            }
            self.scanned = self.buffer.len();
            if self.scanned > LINE_BYTES {
                return Err(Error::Protocol(format!("a line of more than {LINE_BYTES} bytes")));
            }
            self.stream.readable().await.map_err(|error| Error::Io("reading from the monitor", error))?;
            match self.stream.try_read_buf(&mut self.buffer) {
                Ok(0) => return Err(Error::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Error::Closed),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

    const HELLO: &[u8] = b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";

    /// A monitor that answers each line by `answers`, one after the other.
    fn monitor(answers: &'static [&'static str]) -> UnixStream {
        let (here, there) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            let (read, mut write) = there.into_split();
            let mut lines = BufReader::new(read).lines();
            write.write_all(HELLO).await.unwrap();
            for answer in answers {
                let Ok(Some(line)) = lines.next_line().await else { return };
                let id = serde_json::from_str::<Value>(&line).unwrap()["id"].to_string();
                write.write_all(answer.replace("ID", &id).as_bytes()).await.unwrap();
            }
        });
        here
    }

    #[tokio::test]
    async fn commands_get_their_own_answers_and_events_are_counted() {
        let qmp = Qmp::open(monitor(&[
            "{\"return\": {}, \"id\": ID}\n",
            "{\"event\": \"STOP\"}\n{\"event\": \"RESET\"}\n{\"return\": {\"status\": \"paused\"}, \"id\": ID}\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": ID}\n",
        ]))
        .await
        .unwrap();
        let mut changes = qmp.changes();
        let answer = qmp.call("query-status", json!({})).await.unwrap();
        assert_eq!(answer["status"], "paused");
        assert_eq!(*changes.borrow_and_update(), 2);
        let error = qmp.call("cont", json!({})).await.unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused cont: GenericError: no");
        assert!(matches!(qmp.call("quit", json!({})).await, Err(Error::Closed)));
        while changes.changed().await.is_ok() {}
    }

    #[tokio::test]
    async fn an_endless_line_closes_the_connection() {
        let (here, mut there) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            let piece = vec![b'x'; 65_536];
            while there.write_all(&piece).await.is_ok() {}
        });
        assert!(matches!(Qmp::open(here).await, Err(Error::Protocol(_))));
    }

    #[tokio::test]
    async fn what_is_no_monitor_is_refused() {
        let (here, mut there) = UnixStream::pair().unwrap();
        there.write_all(b"{\"hello\": 1}\n").await.unwrap();
        assert!(matches!(Qmp::open(here).await, Err(Error::Protocol(_))));
    }
}
