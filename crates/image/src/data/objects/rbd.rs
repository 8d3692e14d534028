//! Objects as images of Ceph's RBD, by its own client `rbd`.
//!
//! The client is a child with limits and without privileges, started without a shell; a pipe brings it the bytes. What
//! it imports is called `KEY.arriving` until it is whole, has its snapshot [`SNAP`], protected as Glance makes it so
//! that disks can be cloned from it, and gets its name.
//!
//! `rbd export` begins at the beginning: a part of an object is what is left when all before it was thrown away.

use super::{Bites, Error, Objects, Result, is_key, reopened, unread};
use async_trait::async_trait;
use base::Fault;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use nix::errno::Errno;
use serde::Deserialize;
use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The snapshot of every image, from which copies on write are made.
pub const SNAP: &str = "snap";
/// What an image is called until it is whole.
const ARRIVING: &str = ".arriving";
/// Address space of the client.
const MEMORY_BYTES: u64 = 8 << 30;
const CPU_S: u64 = 24 * 3600;
/// What the client waits for its monitors and for each request to a disk.
const MON_S: u64 = 15;
const OSD_S: u64 = 60;
/// Until a call ends that moves no bytes.
const CALL: Duration = Duration::from_secs(90);
/// Bytes that do not move for so long have a broken way.
const IDLE: Duration = Duration::from_secs(90);
const PIECE: usize = 256 << 10;
/// Clients that run at a time; more wait, for a while. Those that give bytes have places of their own: whoever reads
/// slowly keeps nobody from putting.
const CLIENTS: usize = 24;
const EXPORTS: usize = 48;
const TURN: Duration = Duration::from_secs(60);
/// What is read of the client's words: names of images, mostly.
const WORDS_BYTES: u64 = 64 << 20;

/// `[image_stores.NAME]` with `type = "rbd"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RbdOptions {
    pub pool: String,
    #[serde(default = "usual_user")]
    pub user: String,
    #[serde(default = "usual_conf")]
    pub conf: PathBuf,
    /// Where the configuration does not name it.
    pub keyring: Option<PathBuf>,
    /// What the names of this cloud's images begin with: no other cloud may use it.
    #[serde(default)]
    pub prefix: String,
}

fn usual_user() -> String {
    "glance".to_owned()
}

fn usual_conf() -> PathBuf {
    "/etc/ceph/ceph.conf".into()
}

pub struct Rbd {
    options: RbdOptions,
    clients: Arc<Semaphore>,
    exports: Arc<Semaphore>,
}

/// A client that runs, and its place among them.
struct Client {
    child: Child,
    _place: OwnedSemaphorePermit,
}

impl Rbd {
    /// # Errors
    /// Invalid for settings that cannot be right.
    pub fn new(options: &RbdOptions) -> base::Result<Rbd> {
        for (what, name, more) in [
            ("pool", &options.pool, "._-"),
            ("user", &options.user, "._-"),
            ("prefix", &options.prefix, "._"),
        ] {
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
            let empty = name.is_empty() && what != "prefix";
            if !plain || empty || name.len() > 128 || name.starts_with('-') {
                return Err(Fault::invalid(format!("[image_stores]: '{name}' is no name of a {what} of RBD.")));
            }
        }
        let [clients, exports] = [CLIENTS, EXPORTS].map(|most| Arc::new(Semaphore::new(most)));
        Ok(Rbd { options: options.clone(), clients, exports })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("prlimit");
        command.args(["--core=0".to_owned(), format!("--as={MEMORY_BYTES}"), format!("--cpu={CPU_S}")]);
        command.args(["--nofile=4096", "--", "setpriv", "--no-new-privs", "--pdeathsig", "KILL"]);
        if nix::unistd::geteuid().is_root() {
            command.args(["--inh-caps=-all", "--bounding-set=-all,+dac_override"]);
        }
        command.args(["--", "rbd", "--conf"]).arg(&self.options.conf).args(["--id", &self.options.user]);
        if let Some(keyring) = &self.options.keyring {
            command.arg("--keyring").arg(keyring);
        }
        command.args([format!("--client-mount-timeout={MON_S}"), format!("--rados-mon-op-timeout={MON_S}")]);
        command.arg(format!("--rados-osd-op-timeout={OSD_S}")).args(arguments);
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command.env_clear().env("PATH", path).env("LC_ALL", "C").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// What the client answers to a call that moves no bytes.
    async fn call(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let mut client = spawn(&self.clients, &mut self.command(arguments)).await?;
        let late = |_| Error::Silent(format!("its client did nothing for {} seconds", CALL.as_secs()));
        tokio::time::timeout(CALL, ended(&mut client.child, name)).await.map_err(late)?
    }

    fn spec(&self, name: &str) -> String {
        format!("{}/{}{name}", self.options.pool, self.options.prefix)
    }

    async fn size_of(&self, name: &str) -> Result<Option<u64>> {
        #[derive(Deserialize)]
        struct Info {
            size: u64,
        }
        match self.call(name, &["info", "--format", "json", &self.spec(name)]).await {
            Err(Error::Missing(_)) => Ok(None),
            Err(error) => Err(error),
            Ok(text) => Ok(Some(parsed::<Info>(&text)?.size)),
        }
    }

    async fn remove_named(&self, name: &str) -> Result<()> {
        if self.size_of(name).await?.is_none() {
            return Ok(());
        }
        let (spec, snap) = (self.spec(name), format!("{}@{SNAP}", self.spec(name)));
        match self.call(name, &["snap", "unprotect", &snap]).await {
            Err(Error::Refused(why)) if why.contains("busy") => {
                return Err(Error::Refused("disks stand on the image".to_owned()));
            }
            Err(error @ (Error::Silent(_) | Error::Full)) => return Err(error),
            // It has no such snapshot, or an unprotected one.
            _ => {}
        }
        self.call(name, &["snap", "purge", "--no-progress", &spec]).await?;
        match self.call(name, &["rm", "--no-progress", &spec]).await {
            Err(Error::Missing(_)) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn import(&self, name: &str, file: &File, size_bytes: u64) -> Result<()> {
        let file = reopened(file).map_err(unread)?;
        let spec = self.spec(name);
        let arguments = ["import", "--no-progress", "--image-format", "2", "-", &spec];
        let mut client = spawn(&self.clients, self.command(&arguments).stdin(Stdio::piped())).await?;
        let mut to = client.child.stdin.take().ok_or_else(|| Error::Refused("its client takes no bytes".to_owned()))?;
        let mut from = tokio::fs::File::from_std(file).take(size_bytes);
        let (mut piece, mut left) = (vec![0; PIECE], size_bytes);
        let late = || Error::Silent(format!("its client took nothing for {} seconds", IDLE.as_secs()));
        while left > 0 {
            let read = from.read(&mut piece).await.map_err(unread)?;
            if read == 0 {
                return Err(unread(std::io::ErrorKind::UnexpectedEof.into()));
            }
            match tokio::time::timeout(IDLE, to.write_all(&piece[..read])).await {
                Err(_) => return Err(late()),
                // It has ended, and says why.
                Ok(Err(_)) => break,
                Ok(Ok(())) => left -= read as u64,
            }
        }
        drop(to);
        tokio::time::timeout(IDLE, ended(&mut client.child, name)).await.map_err(|_| late())??;
        match left {
            0 => Ok(()),
            _ => Err(Error::Refused("its client took only a part of the bytes".to_owned())),
        }
    }
}

#[async_trait]
impl Objects for Rbd {
    fn kind(&self) -> &'static str {
        "rbd"
    }

    async fn check(&self) -> Result<()> {
        match self.call("", &["trash", "ls", "--format", "json", &self.options.pool]).await {
            Err(Error::Missing(_)) => Err(Error::Refused("there is no such pool".to_owned())),
            other => other.map(drop),
        }
    }

    async fn put(&self, key: &str, file: &File, size_bytes: u64) -> Result<()> {
        let arriving = format!("{key}{ARRIVING}");
        self.remove_named(&arriving).await?;
        let imported = async {
            self.import(&arriving, file, size_bytes).await?;
            let snap = format!("{}@{SNAP}", self.spec(&arriving));
            self.call(key, &["snap", "create", "--no-progress", &snap]).await?;
            self.call(key, &["snap", "protect", &snap]).await?;
            self.remove_named(key).await?;
            self.call(key, &["rename", &self.spec(&arriving), &self.spec(key)]).await
        };
        if let Err(error) = imported.await {
            // Where this fails, too, `remove` comes.
            let _ = self.remove_named(&arriving).await;
            return Err(error);
        }
        Ok(())
    }

    async fn get(&self, key: &str, first: u64, length: u64) -> Result<Bites> {
        self.size_of(key).await?.ok_or_else(|| Error::Missing(key.to_owned()))?;
        if length == 0 {
            return Ok(futures::stream::empty().boxed());
        }
        let spec = format!("{}@{SNAP}", self.spec(key));
        let mut export = self.command(&["export", "--no-progress", &spec, "-"]);
        let mut client = spawn(&self.exports, export.stderr(Stdio::null())).await?;
        let from = client.child.stdout.take().ok_or_else(|| Error::Refused("its client gives no bytes".to_owned()))?;
        Ok(exported(client, from, first, length))
    }

    async fn size(&self, key: &str) -> Result<Option<u64>> {
        self.size_of(key).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.remove_named(&format!("{key}{ARRIVING}")).await?;
        self.remove_named(key).await
    }

    async fn list(&self) -> Result<Vec<String>> {
        let names: Vec<String> = parsed(&self.call("", &["ls", "--format", "json", &self.options.pool]).await?)?;
        let ours = names.iter().filter_map(|name| name.strip_prefix(&self.options.prefix));
        let keys = ours.map(|name| name.strip_suffix(ARRIVING).unwrap_or(name)).filter(|key| is_key(key));
        let mut keys: Vec<String> = keys.map(str::to_owned).collect();
        keys.sort();
        keys.dedup();
        Ok(keys)
    }
}

async fn spawn(places: &Arc<Semaphore>, command: &mut Command) -> Result<Client> {
    let busy = || Error::Silent("its clients are all at work".to_owned());
    let place = tokio::time::timeout(TURN, places.clone().acquire_owned()).await;
    let place = place.map_err(|_| busy())?.map_err(|_| busy())?;
    let spawned = command.spawn();
    let child = spawned.map_err(|error| Error::Refused(format!("its client does not run ({})", error.kind())))?;
    Ok(Client { child, _place: place })
}

/// What the client said, once it has come to a good end.
async fn ended(child: &mut Child, name: &str) -> Result<String> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err) = tokio::join!(said(out), said(err));
    let status = child.wait().await.map_err(|error| Error::Refused(format!("its client is lost ({})", error.kind())))?;
    match status.code() {
        Some(0) => Ok(out),
        code => {
            tracing::debug!(name, ?code, "rbd: {}", err.trim());
            Err(failure(name, code, &err))
        }
    }
}

/// The client ends with the number of what went wrong.
fn failure(name: &str, code: Option<i32>, said: &str) -> Error {
    if said.contains("connect to the cluster") {
        // With the number of whatever kept it away: no such monitor, no such key.
        return Error::Silent("its client cannot connect to the cluster".to_owned());
    }
    match code.map(Errno::from_raw) {
        // Nothing else that is not there may be taken for an image that is not.
        Some(Errno::ENOENT) if said.contains("error opening image") => Error::Missing(name.to_owned()),
        Some(Errno::ENOSPC | Errno::EDQUOT) => Error::Full,
        Some(Errno::ETIMEDOUT) => Error::Silent("its client waited in vain".to_owned()),
        Some(Errno::ENOENT) if said.contains("error opening pool") => {
            Error::Refused("there is no such pool".to_owned())
        }
        Some(errno) if errno != Errno::UnknownErrno => Error::Refused(errno.desc().to_lowercase()),
        _ => Error::Refused("its client ended badly".to_owned()),
    }
}

async fn said(from: Option<impl AsyncRead + Unpin>) -> String {
    let Some(from) = from else { return String::new() };
    let mut bytes = Vec::new();
    // What cannot be read was not said.
    let _ = from.take(WORDS_BYTES).read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

fn parsed<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::Refused(format!("its client answers no JSON ({error})")))
}

/// Bytes of an export: what comes before is thrown away. The client ends with whoever reads them, and does not wait
/// longer than [`IDLE`] for somebody who reads no further.
fn exported(client: Client, from: ChildStdout, first: u64, length: u64) -> Bites {
    let (to, bites) = mpsc::channel(1);
    tokio::spawn(async move {
        let _client = client;
        if let Err(error) = give(from, first, length, &to).await {
            // Without room for it, the stream ends too early, which says as much.
            let _ = to.try_send(Err(error));
        }
    });
    futures::stream::try_unfold((bites, length), |(mut bites, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let piece: Bytes = bites.recv().await.unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()))?;
        let left = left - piece.len() as u64;
        Ok(Some((piece, (bites, left))))
    })
    .boxed()
}

async fn give(
    mut from: ChildStdout,
    first: u64,
    length: u64,
    to: &mpsc::Sender<std::io::Result<Bytes>>,
) -> std::io::Result<()> {
    let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
    let (mut skip, mut left) = (first, length);
    while left > 0 {
        let mut piece = BytesMut::with_capacity(PIECE);
        if tokio::time::timeout(IDLE, from.read_buf(&mut piece)).await.map_err(|_| late())?? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let thrown = skip.min(piece.len() as u64);
        skip -= thrown;
        let mut piece = piece.split_off(thrown as usize).freeze();
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        if !piece.is_empty() {
            left -= piece.len() as u64;
            to.send_timeout(Ok(piece), IDLE).await.map_err(|_| late())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        let options: RbdOptions = serde_json::from_value(serde_json::json!({"pool": "images"})).unwrap();
        assert_eq!((&*options.user, options.conf.to_str()), ("glance", Some("/etc/ceph/ceph.conf")));
        assert!(Rbd::new(&options).is_ok());
        for (pool, user) in [("", "u"), ("a/b", "u"), ("-p", "u"), ("p", "u --x"), ("p@s", "u")] {
            let options = RbdOptions { pool: pool.to_owned(), user: user.to_owned(), ..options.clone() };
            let refused = Rbd::new(&options).err().unwrap().message;
            assert!(refused.contains("is no name of a"), "{refused}");
        }
    }

    #[test]
    fn ends_of_the_client_are_told_apart() {
        for (code, said, told) in [
            (Some(2), "rbd: error opening image k: (2) No such file or directory", "has no object k"),
            (Some(2), "rbd: error opening pool 'p': (2) No such file or directory", "refuses: there is no such pool"),
            (Some(28), "", "is full"),
            (Some(110), "", "does not answer: its client waited in vain"),
            (Some(1), "rbd: couldn't connect to the cluster!", "does not answer: its client cannot connect to the cluster"),
            (
                Some(2),
                "unable to find a keyring: (2) No such file or directory\nrbd: couldn't connect to the cluster!",
                "does not answer: its client cannot connect to the cluster",
            ),
            (Some(2), "rbd: delete error: (2) No such file or directory", "refuses: no such file or directory"),
            (Some(16), "", "refuses: device or resource busy"),
            (None, "", "refuses: its client ended badly"),
        ] {
            assert_eq!(failure("k", code, said).to_string(), told);
        }
    }
}
