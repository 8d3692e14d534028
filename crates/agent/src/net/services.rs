//! The agent's side of `nubo netd`: opens the sockets in each network's namespace and hands them over with what is to
//! be served there. Holds what netd shall have, and sends what it has not; a netd that is gone is started again.

use super::names::{BRIDGE, METADATA};
use super::plan::network::service_mac;
use super::world::World;
use crate::netd::link::{Ask, GuestView, Keep, Link, NetworkView, Role, VERSION};
use agent_api::{InstanceMetadata, NetworkSpec};
use base::{NetworkId, ServerId};
use netlink::Netns;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How netd is found and started.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Where netd's control socket lies.
    pub socket: PathBuf,
    /// Program and arguments that become netd; it takes the control socket as its standard input.
    pub command: Vec<String>,
    /// Where its log goes; none: nowhere.
    pub log: Option<PathBuf>,
}

/// Which sockets a network's netd has: those of another bridge are of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    namespace: u64,
    bridge: u32,
}

/// What has changed: only that is compared with what was sent.
enum Part<'a> {
    All,
    Network(&'a NetworkId),
    Guests,
}

struct Wanted {
    view: NetworkView,
    ns: Netns,
    sent: Option<(NetworkView, Place)>,
}

pub struct Services {
    options: Option<ServiceOptions>,
    link: Option<Link>,
    networks: BTreeMap<NetworkId, Wanted>,
    guests: BTreeMap<ServerId, (InstanceMetadata, bool)>,
    /// Something was taken away, and netd has been told only what is new.
    prune: bool,
    /// Everything that shall be is known: what else netd has may go.
    whole: bool,
    pub retry: Option<Instant>,
    attempts: u32,
    gone: Arc<dyn Fn() + Send + Sync>,
}

impl Services {
    /// `gone` is called, on another thread, when netd has ended.
    pub fn new(options: Option<ServiceOptions>, gone: Arc<dyn Fn() + Send + Sync>) -> Services {
        Services {
            options,
            link: None,
            networks: BTreeMap::new(),
            guests: BTreeMap::new(),
            prune: false,
            whole: false,
            retry: None,
            attempts: 0,
            gone,
        }
    }

    /// A network whose bridge stands.
    pub fn network(&mut self, world: &World, spec: &NetworkSpec, ns: &Netns) {
        let ports = world.ports_of(&spec.id).cloned().collect();
        let view = NetworkView { spec: spec.clone(), mac: service_mac(spec), ports };
        let sent = self.networks.remove(&spec.id).and_then(|old| old.sent);
        self.networks.insert(spec.id.clone(), Wanted { view, ns: ns.clone(), sent });
        self.send(&Part::Network(&spec.id));
    }

    pub fn guests(&mut self, world: &World) {
        let before = self.guests.len();
        self.guests.retain(|id, _| world.guests.contains_key(id));
        self.prune |= self.guests.len() < before;
        for (id, metadata) in &world.guests {
            if self.guests.get(id).is_none_or(|(known, _)| known != metadata) {
                self.guests.insert(id.clone(), (metadata.clone(), false));
            }
        }
        self.send(&Part::Guests);
    }

    pub fn forget(&mut self, id: &NetworkId) {
        if self.networks.remove(id).is_none() {
            return;
        }
        let ask = Ask::Forget { network: id.clone() };
        // A netd that does not hear it is told by the next list of what it shall keep.
        self.prune |= self.link.as_mut().is_none_or(|link| link.ask(&ask, None).is_err());
    }

    /// After a whole view has been carried out.
    pub fn complete(&mut self) {
        self.prune |= !self.whole;
        self.whole = true;
        self.sync();
    }

    /// netd has ended: whatever it had is sent again to the next one.
    pub fn lost(&mut self) {
        if self.link.as_mut().is_some_and(|link| link.hello().is_err()) {
            self.link = None;
        }
        self.sync();
    }

    /// Sends what netd has not. Failing that, tries again later.
    pub fn sync(&mut self) {
        self.send(&Part::All);
    }

    fn send(&mut self, part: &Part<'_>) {
        if self.options.is_none() || (self.retry.is_some_and(|at| Instant::now() < at) && !matches!(part, Part::All)) {
            return;
        }
        match self.try_send(part) {
            Ok(()) => (self.retry, self.attempts) = (None, 0),
            Err(error) => {
                if error.kind() != io::ErrorKind::Other {
                    self.link = None;
                }
                self.attempts = self.attempts.saturating_add(1);
                if self.attempts.is_power_of_two() {
                    tracing::warn!(%error, attempts = self.attempts, "DHCP and metadata are not served as they shall be");
                }
                self.retry = Some(Instant::now() + Duration::from_millis(100 << self.attempts.min(8)));
            }
        }
    }

    fn try_send(&mut self, part: &Part<'_>) -> io::Result<()> {
        // After a failure, and for a netd that is new, everything counts.
        let all = Part::All;
        let part = if self.link.is_none() || self.retry.is_some() { &all } else { part };
        if self.link.is_none() {
            self.connect()?;
        }
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        let mut first = Ok(());
        let concerned = |id: &NetworkId| match part {
            Part::All => true,
            Part::Network(only) => *only == id,
            Part::Guests => false,
        };
        for (_, wanted) in self.networks.iter_mut().filter(|(id, _)| concerned(id)) {
            match hand_over(link, wanted) {
                // A bridge that is broken, or a view that netd refuses, keeps nobody else from being served.
                Err(error) if error.kind() == io::ErrorKind::Other => first = first.and(Err(error)),
                other => other?,
            }
        }
        for (id, (metadata, sent)) in self.guests.iter_mut().filter(|(_, (_, sent))| !*sent) {
            link.ask_with(&Ask::Guest, &GuestView { id: id.clone(), metadata: metadata.clone() })?;
            *sent = true;
        }
        if self.prune && self.whole {
            let keep = Keep {
                networks: self.networks.keys().cloned().collect(),
                guests: self.guests.keys().cloned().collect(),
            };
            link.ask_with(&Ask::Keep, &keep)?;
            self.prune = false;
        }
        first
    }

    /// The netd that serves already, if it speaks as we do; otherwise a new one.
    fn connect(&mut self) -> io::Result<()> {
        let Some(options) = &self.options else { return Ok(()) };
        let link = match Link::connect(&options.socket) {
            Ok(link) if link.version == VERSION => link,
            Ok(mut old) => {
                tracing::info!(version = old.version, "netd is replaced by one of this version");
                let _ = old.ask(&Ask::Quit, None);
                old.wait_for_end(Duration::from_secs(5));
                spawn(options)?
            }
            Err(_) => spawn(options)?,
        };
        watch(&link, self.gone.clone())?;
        self.networks.values_mut().for_each(|wanted| wanted.sent = None);
        self.guests.values_mut().for_each(|(_, sent)| *sent = false);
        self.prune = true;
        self.link = Some(link);
        Ok(())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            // Ends the watcher; netd itself goes on.
            let _ = link.stream().shutdown(std::net::Shutdown::Both);
        }
    }
}

/// A network's view, if it has changed, and its sockets, if netd's are of another bridge.
fn hand_over(link: &mut Link, wanted: &mut Wanted) -> io::Result<()> {
    let bridge = netlink::link::index(&wanted.ns, BRIDGE).map_err(io::Error::other)?;
    let place = Place { namespace: wanted.ns.inode(), bridge };
    if wanted.sent.as_ref().is_none_or(|(view, _)| *view != wanted.view) {
        link.ask_with(&Ask::Network, &wanted.view)?;
    }
    if wanted.sent.as_ref().is_none_or(|(_, had)| *had != place) {
        for (role, socket) in open(&wanted.ns)? {
            link.ask(&Ask::Socket { network: wanted.view.spec.id.clone(), role }, Some(socket.as_fd()))?;
        }
    }
    wanted.sent = Some((wanted.view.clone(), place));
    Ok(())
}

fn open(ns: &Netns) -> io::Result<[(Role, OwnedFd); 3]> {
    let dhcp = netlink::open::dhcp_socket(ns, BRIDGE).map_err(io::Error::other)?;
    let frames = netlink::open::send_only_packet_socket(ns, BRIDGE).map_err(io::Error::other)?;
    let metadata = netlink::open::listener(ns, BRIDGE, METADATA, 80).map_err(io::Error::other)?;
    Ok([(Role::Frames, frames), (Role::Dhcp, dhcp.into()), (Role::Metadata, metadata.into())])
}

/// Starts netd. It takes a session of its own, so that it outlives the agent.
fn spawn(options: &ServiceOptions) -> io::Result<Link> {
    let listener = unixfd::listen(&options.socket)?;
    std::fs::set_permissions(&options.socket, std::fs::Permissions::from_mode(0o600))?;
    let log = || -> io::Result<Stdio> {
        Ok(match &options.log {
            Some(path) => std::fs::OpenOptions::new().create(true).append(true).open(path)?.into(),
            None => Stdio::null(),
        })
    };
    let [program, arguments @ ..] = &options.command[..] else {
        return Err(io::Error::other("there is no command that becomes netd"));
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(OwnedFd::from(listener)).stdout(log()?).stderr(log()?).current_dir("/");
    let mut child = command.spawn()?;
    // A connection waits in the listener's queue until netd is ready; should it end first, its end closes the queue.
    let link = Link::connect(&options.socket);
    std::thread::Builder::new().name("netd".into()).stack_size(64 * 1024).spawn(move || child.wait())?;
    link
}

/// Calls `gone` when the connection has ended: a hang-up is always polled for.
fn watch(link: &Link, gone: Arc<dyn Fn() + Send + Sync>) -> io::Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let stream = link.stream().try_clone()?;
    let work = move || {
        let mut polled = [PollFd::new(stream.as_fd(), PollFlags::empty())];
        while poll(&mut polled, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
        gone();
    };
    std::thread::Builder::new().name("netd-watch".into()).stack_size(64 * 1024).spawn(work)?;
    Ok(())
}
