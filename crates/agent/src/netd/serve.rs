//! netd's own side: takes networks, sockets and guests from the agent, and runs a task for each socket.

use super::dhcp::{self, Way};
use super::link::{Answer, Ask, GuestView, Keep, NetworkView, Role, VERSION, read_blob};
use super::metadata;
use base::{NetworkId, ServerId};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::task::JoinHandle;

/// Everything that is served.
#[derive(Default)]
pub struct Served {
    networks: Mutex<BTreeMap<NetworkId, Network>>,
    guests: Mutex<BTreeMap<ServerId, Arc<GuestView>>>,
}

#[derive(Default)]
struct Network {
    view: Option<Arc<NetworkView>>,
    frames: Option<Arc<OwnedFd>>,
    dhcp: Option<Task>,
    metadata: Option<Task>,
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Served {
    pub fn view(&self, network: &NetworkId) -> Option<Arc<NetworkView>> {
        locked(&self.networks).get(network)?.view.clone()
    }

    pub fn guest(&self, server: &ServerId) -> Option<Arc<GuestView>> {
        locked(&self.guests).get(server).cloned()
    }

    fn frames(&self, network: &NetworkId) -> Option<Arc<OwnedFd>> {
        locked(&self.networks).get(network)?.frames.clone()
    }
}

/// Serves until it is told to end.
pub fn run(listener: UnixListener, allowed: u32) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = Arc::new(Served::default());
    let (quit, ended) = tokio::sync::oneshot::channel();
    let control =
        Control { served, runtime: runtime.handle().clone(), quit: Arc::new(Mutex::new(Some(quit))), allowed };
    std::thread::Builder::new()
        .name("control".into())
        .stack_size(512 * 1024)
        .spawn(move || control.accept(listener))?;
    let _ = runtime.block_on(ended);
    Ok(())
}

#[derive(Clone)]
struct Control {
    served: Arc<Served>,
    runtime: tokio::runtime::Handle,
    quit: Arc<Mutex<Option<tokio::sync::oneshot::Sender<()>>>>,
    allowed: u32,
}

impl Control {
    fn accept(self, listener: UnixListener) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                std::thread::sleep(std::time::Duration::from_millis(100));
                continue;
            };
            if unixfd::peer_uid(&stream).ok() != Some(self.allowed) {
                tracing::warn!("a stranger knocked at the control socket");
                continue;
            }
            let control = self.clone();
            let _ = std::thread::Builder::new().stack_size(512 * 1024).spawn(move || control.talk(stream));
        }
    }

    fn talk(&self, stream: UnixStream) {
        while let Ok((bytes, file)) = unixfd::recv_fd(&stream) {
            if bytes.is_empty() {
                return;
            }
            let ask = serde_json::from_slice::<Ask>(&bytes).map_err(io::Error::from);
            let fault = ask.and_then(|ask| self.obey(ask, file)).err().map(|error| error.to_string());
            let answer = Answer { fault, version: VERSION.into(), pid: std::process::id() };
            let sent =
                serde_json::to_vec(&answer).map_err(io::Error::from).and_then(|b| unixfd::send_fd(&stream, &b, None));
            if sent.is_err() {
                return;
            }
        }
    }

    fn obey(&self, ask: Ask, file: Option<OwnedFd>) -> io::Result<()> {
        let file = || file.ok_or_else(|| io::Error::other("a file is missing"));
        match ask {
            Ask::Hello => {}
            Ask::Network => {
                let view: NetworkView = read_blob(file()?)?;
                let id = view.spec.id.clone();
                locked(&self.served.networks).entry(id).or_default().view = Some(Arc::new(view));
            }
            Ask::Socket { network, role } => self.socket(network, role, file()?)?,
            Ask::Guest => {
                let guest: GuestView = read_blob(file()?)?;
                locked(&self.served.guests).insert(guest.id.clone(), Arc::new(guest));
            }
            Ask::Forget { network } => {
                locked(&self.served.networks).remove(&network);
            }
            Ask::Keep => {
                let keep: Keep = read_blob(file()?)?;
                locked(&self.served.networks).retain(|id, _| keep.networks.contains(id));
                let guests: std::collections::BTreeSet<_> = keep.guests.into_iter().collect();
                locked(&self.served.guests).retain(|id, _| guests.contains(id));
            }
            Ask::Quit => {
                if let Some(quit) = locked(&self.quit).take() {
                    let _ = quit.send(());
                }
            }
        }
        Ok(())
    }

    fn socket(&self, id: NetworkId, role: Role, fd: OwnedFd) -> io::Result<()> {
        let _inside = self.runtime.enter();
        let served = self.served.clone();
        let mut networks = locked(&self.served.networks);
        let network = networks.entry(id.clone()).or_default();
        match role {
            Role::Frames => network.frames = Some(Arc::new(fd)),
            Role::Dhcp => {
                let socket = tokio::net::UdpSocket::from_std(fd.into())?;
                network.dhcp = Some(Task(self.runtime.spawn(serve_dhcp(served, id, socket))));
            }
            Role::Metadata => {
                let listener = tokio::net::TcpListener::from_std(fd.into())?;
                network.metadata = Some(Task(self.runtime.spawn(metadata::serve(served, id, listener))));
            }
        }
        Ok(())
    }
}

async fn serve_dhcp(served: Arc<Served>, network: NetworkId, socket: tokio::net::UdpSocket) {
    let mut buffer = [0u8; 1500];
    loop {
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else {
            // The link is gone, or the kernel is short of something: the agent hands over a new socket or time helps.
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            continue;
        };
        let Some(query) = dhcp::parse(&buffer[..length]) else { continue };
        let Some(view) = served.view(&network) else { continue };
        let Some(reply) = dhcp::answer(&view, &query) else { continue };
        let sent = match reply.way {
            Way::Broadcast => socket.send_to(&reply.bytes, SocketAddrV4::new([255; 4].into(), 68)).await.map(|_| ()),
            Way::To(ip) => socket.send_to(&reply.bytes, SocketAddrV4::new(ip, 68)).await.map(|_| ()),
            Way::Frame(ip) => {
                let frame = dhcp::frame(&reply, view.mac, query.mac, ip);
                send_frame(served.frames(&network), &frame)
            }
        };
        if let Err(error) = sent {
            tracing::debug!(%error, %network, "a DHCP answer was not sent");
        }
    }
}

fn send_frame(socket: Option<Arc<OwnedFd>>, frame: &[u8]) -> io::Result<()> {
    let socket = socket.ok_or_else(|| io::Error::other("there is no socket for frames"))?;
    nix::sys::socket::send(socket.as_raw_fd(), frame, nix::sys::socket::MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}
