//! The agent as control sees it: takes the view, answers orders, says what it observes.

use crate::board::Board;
use crate::cgroup::Cgroups;
use crate::fault;
use crate::files::{self, Layout};
use crate::guest::{self, Guest, check};
use crate::images::{self, Images};
use crate::inventory;
use crate::ksm::{self, Ksm};
use crate::ledger::LedgerFile;
use crate::sandbox::Sandbox;
use crate::scope::Scopes;
use crate::volumes::Volumes;
use crate::volumes::file::FileDriver;
use crate::wiring::Wiring;
use agent_api::{
    BoxStream, ControlLink, DesiredPower, DiskFormat, GuestObserved, GuestSpec, HostAgent, HostInventory,
    MemorySharing, ObservedPower, Report, SharingSetting, ViewDelta, ViewKind, ViewObject,
};
use async_trait::async_trait;
use base::{CloudId, Env, HostName, ServerId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What lies between a copy of a disk and the connection that takes it.
const PIPE: usize = 1 << 20;
/// The bytes of a copy.
type Bytes = std::pin::Pin<Box<dyn tokio::io::AsyncRead + Send>>;

/// Sends a copy when it is made; the stream is there at once.
fn sent(copy: impl Future<Output = Result<std::fs::File, String>> + Send + 'static) -> BoxStream {
    let (mut ours, theirs) = tokio::io::duplex(PIPE);
    tokio::spawn(async move {
        let copied = copy.await.and_then(|copy| {
            let length = copy.metadata().map_err(|error| error.to_string())?.len();
            let bytes: Bytes = Box::pin(tokio::fs::File::from_std(copy));
            Ok((length, bytes))
        });
        if let Err(error) = agent_api::send_disk(&mut ours, copied).await {
            tracing::debug!(%error, "nobody takes the copy of a disk");
        }
    });
    Box::pin(theirs)
}

/// How an agent is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state directory: the agent keeps to `hosts/` below it.
    pub state: PathBuf,
    pub cloud: CloudId,
    pub host: HostName,
    /// An address by which other hosts reach this one.
    pub address: String,
    /// The program's version.
    pub version: String,
    /// `auto`, `kvm` or `tcg`.
    pub accel: String,
    /// The unprivileged user and group of guests; none: the agent's own (tests without root).
    pub guest_user: Option<(u32, u32)>,
    pub qemu: PathBuf,
    /// The kernel's boot id, from [`inventory::boot_id`].
    pub boot_id: String,
    /// How long a guest may take to switch itself off before its process is ended.
    pub soft_deadline: Duration,
    /// Whether guests offer their memory to be shared, and the host's switch for it in `ksm_folder`.
    pub ksm: SharingSetting,
    pub ksm_folder: PathBuf,
}

impl Options {
    /// The usual options of a host.
    pub fn new(state: PathBuf, cloud: CloudId, host: HostName) -> Options {
        Options {
            state,
            cloud,
            host,
            address: "127.0.0.1".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            accel: "auto".into(),
            guest_user: None,
            qemu: "qemu-system-x86_64".into(),
            boot_id: inventory::boot_id(),
            soft_deadline: Duration::from_secs(60),
            ksm: SharingSetting::AsIs,
            ksm_folder: ksm::FOLDER.into(),
        }
    }
}

/// What all actors share.
pub struct Host {
    pub options: Options,
    pub env: Env,
    pub layout: Layout,
    pub accel: qemu::Accel,
    /// Groups that guests need besides their own: that of /dev/kvm.
    pub guest_groups: Vec<u32>,
    pub wiring: Arc<dyn Wiring>,
    pub images: Arc<Images>,
    pub volumes: Arc<Volumes>,
    pub sandbox: Sandbox,
    /// Copies of disks that may be made at the same time.
    pub copies: tokio::sync::Semaphore,
    /// Disks that may be made to stand alone at the same time: each takes room that no other sees taken yet.
    pub flattenings: Arc<tokio::sync::Semaphore>,
    pub cgroups: Cgroups,
    /// Instead of control groups of our own, where systemd owns them.
    pub scopes: Option<Scopes>,
    pub board: Board<GuestObserved>,
    pub ksm: Ksm,
}

/// The real [`HostAgent`].
pub struct Agent {
    host: Arc<Host>,
    inventory: HostInventory,
    guests: Mutex<BTreeMap<ServerId, Arc<Guest>>>,
    /// One step of the view at a time.
    applying: tokio::sync::Mutex<()>,
    /// Reports made in this session.
    reports: AtomicU64,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.host.volumes.stop();
    }
}

impl Agent {
    /// Reads the ledgers and sets an actor over each: guests that run are adopted, guests of a rebooted host come
    /// back. The error says what an operator must change before an agent can run here.
    pub async fn start(
        options: Options,
        env: Env,
        wiring: Arc<dyn Wiring>,
        link: Arc<dyn ControlLink>,
    ) -> Result<Agent, String> {
        let name_fits =
            |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._".contains(&it));
        if !name_fits(&options.cloud) || !name_fits(&options.host) {
            return Err(format!("{:?} and {:?} cannot name processes and groups", options.cloud, options.host));
        }
        let choice = qemu::accel::choose(&options.accel)?;
        let layout = Layout::new(&options.state);
        layout.make().map_err(|error| format!("{}: {error}", layout.guests.display()))?;
        let mut inventory = inventory::take(&options, &env, &choice).await;
        let ksm = Ksm::new(&options, &layout, inventory.memory_mib);
        inventory.warnings.extend(ksm.apply());
        for warning in &inventory.warnings {
            tracing::warn!("{warning}");
        }
        let sandbox = Sandbox::new(&options);
        let images = Arc::new(Images::new(layout.images.clone(), options.host.clone(), link));
        let driver = Arc::new(FileDriver::new(layout.clone(), sandbox.clone()));
        let volumes = Volumes::new(driver, layout.clone(), images.clone(), env.clone());
        let host = Arc::new(Host {
            images,
            volumes,
            sandbox,
            copies: tokio::sync::Semaphore::new(guest::AT_A_TIME),
            flattenings: Arc::new(tokio::sync::Semaphore::new(guest::AT_A_TIME)),
            cgroups: Cgroups::detect(&options.cloud),
            scopes: Scopes::detect(&options.cloud),
            guest_groups: inventory::kvm_group(choice.accel),
            accel: choice.accel,
            board: Board::default(),
            ksm,
            layout,
            options,
            env,
            wiring,
        });
        let agent = Agent {
            host,
            inventory,
            guests: Mutex::default(),
            applying: tokio::sync::Mutex::default(),
            reports: AtomicU64::new(0),
        };
        let unreadable = |error| format!("the ledgers of guests and volumes cannot be read: {error}");
        agent.load().map_err(unreadable)?;
        agent.host.volumes.load().await.map_err(unreadable)?;
        Ok(agent)
    }

    fn guests(&self) -> std::sync::MutexGuard<'_, BTreeMap<ServerId, Arc<Guest>>> {
        self.guests.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    fn guest(&self, id: &ServerId) -> Result<Arc<Guest>, String> {
        self.guests().get(id).cloned().ok_or_else(|| format!("Server {id} is not on this host."))
    }

    fn load(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.host.layout.guests)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !check::id(&name) {
                continue;
            }
            let id = ServerId::new(name);
            let files = self.host.layout.guest(&id);
            match LedgerFile::load(files.clone()) {
                Ok(ledger) => {
                    guest::sweep(&files)?;
                    for volume in ledger.read().done.plugged {
                        // Until its process has been looked at, nobody else touches what it may have open.
                        let _ = self.host.volumes.claim(&volume.volume, &id);
                    }
                    self.host.board.expect(id.clone());
                    let guest = Guest::run(self.host.clone(), id.clone(), ledger);
                    self.guests().insert(id, Arc::new(guest));
                }
                // A folder whose ledger was not written yet, or was already removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => files::remove(&files.folder)?,
                Err(error) => {
                    // Left alone, whatever runs there: someone has to look.
                    tracing::error!(%error, server = %id, "a guest's ledger cannot be read; the guest is left alone");
                    self.host.board.publish(unreadable(&id, &error));
                }
            }
        }
        let known = |id: &ServerId| self.host.layout.guest(id).folder.exists();
        guest::end_orphans(&self.host, known);
        self.sweep_images();
        Ok(())
    }

    /// Looks at every guest again, as after a start: ledgers that somebody has changed or removed are written anew,
    /// since what the actors know is what they have read or done themselves.
    pub async fn look_again(&self) {
        let guests: Vec<(ServerId, Arc<Guest>)> =
            self.guests().iter().map(|(id, guest)| (id.clone(), guest.clone())).collect();
        self.host.volumes.look_again().await;
        for (id, guest) in guests {
            if let Err(error) = guest.ledger.ensure_written().await {
                tracing::warn!(%error, server = %id, "a guest's ledger could not be written anew");
            }
            guest.look_again();
        }
    }

    /// Before the agent ends in good order: what it switched on the host for as long as it runs.
    ///
    /// # Errors
    /// The kernel took the former value of its switch for shared memory not back.
    pub fn put_back(&self) -> io::Result<()> {
        self.host.ksm.restore()
    }

    fn sweep_images(&self) {
        let guests = self.guests();
        let used: BTreeSet<String> =
            guests.values().filter_map(|guest| Some(images::file_name(&guest.ledger.read().image()?))).collect();
        drop(guests);
        self.host.images.sweep(&used);
    }

    async fn put(&self, spec: GuestSpec) -> Result<(), String> {
        if !check::id(&spec.id) {
            tracing::error!(id = %spec.id, "a spec with an id that is no UUID was refused");
            return Ok(());
        }
        let id = spec.id.clone();
        let known = self.guests().get(&id).cloned();
        if let Some(guest) = known {
            let new = spec.clone();
            match guest.ledger.note(move |ledger| rise(ledger, new)).await {
                Ok(true) => return Ok(guest.wake()),
                Ok(false) => return Ok(()),
                Err(_) if guest.ledger.is_gone() => {}
                Err(error) => return Err(fault::disk("ledger", &error).message),
            }
        }
        self.guests().remove(&id);
        let files = self.host.layout.guest(&id);
        if spec.power == DesiredPower::Absent && !files.folder.exists() {
            self.host.board.publish(GuestObserved {
                generation: spec.generation,
                soft_reboots: spec.soft_reboots,
                hard_reboots: spec.hard_reboots,
                ..blank(&id, ObservedPower::Absent)
            });
            return Ok(());
        }
        let ledger = match LedgerFile::create(files, spec).await {
            Ok(ledger) => ledger,
            Err(error) => {
                let fault = fault::disk("ledger", &error);
                let message = fault.message.clone();
                self.host.board.publish(GuestObserved { fault: Some(fault), ..blank(&id, ObservedPower::Building) });
                return Err(message);
            }
        };
        let guest = Guest::run(self.host.clone(), id.clone(), ledger);
        self.guests().insert(id, Arc::new(guest));
        Ok(())
    }

    /// Dropped from the view: a guest that still exists is left as it is, what was said of a removed one is forgotten.
    fn dropped(&self, id: &ServerId) {
        let ended = self.guests().get(id).is_none_or(|guest| guest.ledger.is_gone());
        if ended {
            self.guests().remove(id);
            self.host.board.forget(id);
        }
    }

    /// Forgets actors that have removed their guest.
    fn prune(&self) {
        self.guests().retain(|_, guest| !guest.ledger.is_gone());
    }
}

/// Takes over a spec of a higher generation.
fn rise(ledger: &mut crate::ledger::Ledger, spec: GuestSpec) -> bool {
    if spec.generation <= ledger.spec.generation {
        if spec.generation < ledger.spec.generation {
            tracing::warn!(
                server = %spec.id,
                generation = spec.generation,
                known = ledger.spec.generation,
                "refused a spec of a lower generation"
            );
        }
        return false;
    }
    for nic in &ledger.spec.nics {
        if !spec.nics.iter().any(|new| new.port == nic.port) && !ledger.done.ports.contains(&nic.port) {
            ledger.done.ports.push(nic.port.clone());
        }
    }
    ledger.spec = spec;
    true
}

fn blank(id: &ServerId, power: ObservedPower) -> GuestObserved {
    GuestObserved {
        id: id.clone(),
        generation: 0,
        power,
        soft_reboots: 0,
        hard_reboots: 0,
        stopped_by_itself: None,
        fault: None,
        attempts: 0,
        volumes: Vec::new(),
        started_at: None,
        flat: false,
        flat_problem: None,
    }
}

fn unreadable(id: &ServerId, error: &io::Error) -> GuestObserved {
    let fault = agent_api::AgentFault {
        message: "The host's record of this server is damaged. The operator must repair or remove it.".into(),
        detail: error.to_string(),
        retried: false,
    };
    GuestObserved { fault: Some(fault), ..blank(id, ObservedPower::Stopped) }
}

#[async_trait]
impl HostAgent for Agent {
    fn inventory(&self) -> HostInventory {
        // Asked for at each poll: room comes and goes.
        HostInventory { volume_pool: self.host.volumes.pool(), ..self.inventory.clone() }
    }

    fn memory_sharing(&self) -> Option<MemorySharing> {
        self.host.ksm.look()
    }

    async fn apply(&self, delta: ViewDelta) -> Result<(), String> {
        let _alone = self.applying.lock().await;
        self.prune();
        // Ports before the guests that stand on them.
        self.host.wiring.apply(&delta).await;
        let mut failed = None;
        for object in delta.put {
            let put = match object {
                ViewObject::Guest(spec) => self.put(spec).await,
                ViewObject::Volume(spec) => self.host.volumes.put(spec).await,
                _ => Ok(()),
            };
            if let Err(error) = put {
                // The others need not wait for a disk that is full for this one.
                failed = Some(error);
            }
        }
        for (kind, id) in delta.remove {
            match kind {
                ViewKind::Guest => self.dropped(&ServerId::new(id)),
                ViewKind::Volume => self.host.volumes.dropped(&VolumeId::new(id)),
                _ => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn observe(&self, whole: bool) -> Report {
        let mut report = Report {
            host: self.inventory.name.clone(),
            session: self.inventory.session.clone(),
            sequence: self.reports.fetch_add(1, Ordering::SeqCst) + 1,
            whole,
            ..Report::default()
        };
        let wiring = &self.host.wiring;
        if whole {
            let patience = Duration::from_secs(15);
            let (board, volumes) = (&self.host.board, &self.host.volumes.board);
            let (guests, seen) = tokio::join!(
                tokio::time::timeout(patience, board.whole()),
                tokio::time::timeout(patience, volumes.whole())
            );
            report.guests = guests.unwrap_or_else(|_| board.all());
            report.volumes = seen.unwrap_or_else(|_| volumes.all());
            (report.ports, report.routers) = wiring.observe(true).await;
            return report;
        }
        tokio::select! {
            guests = self.host.board.fresh() => report.guests = guests,
            volumes = self.host.volumes.board.fresh() => report.volumes = volumes,
            (ports, routers) = wiring.observe(false) => {
                (report.ports, report.routers) = (ports, routers);
                report.guests = self.host.board.take();
            }
        }
        report
    }

    async fn console_log(&self, server: &ServerId, bytes: u64) -> Result<Vec<u8>, String> {
        self.guest(server)?;
        let files = self.host.layout.guest(server);
        let log = crate::ledger::blocking(move || guest::tail(&files, bytes)).await;
        log.map_err(|error| fault::disk("console log", &error).message)
    }

    async fn console(&self, server: &ServerId, serial: bool) -> Result<BoxStream, String> {
        let guest = self.guest(server)?;
        let socket = if serial {
            guest.serial().map_err(|error| {
                tracing::debug!(%error, %server, "no serial console");
                format!("Server {server} has no serial console now: it is not running.")
            })?
        } else {
            guest.screen().await?
        };
        let ready = socket.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(socket));
        let ready = ready.map_err(|error| error.to_string())?;
        Ok(if serial { Box::pin(guest::pump(ready)) } else { Box::pin(ready) })
    }

    async fn disk(&self, server: &ServerId) -> Result<BoxStream, String> {
        let (host, id, guest) = (self.host.clone(), server.clone(), self.guest(server)?);
        Ok(sent(async move { guest::copy(&host, &id, &guest).await }))
    }

    async fn volume(&self, volume: &VolumeId, format: DiskFormat) -> Result<BoxStream, String> {
        let (host, id) = (self.host.clone(), volume.clone());
        Ok(sent(async move {
            let permit = host.copies.try_acquire();
            let Ok(_permit) = permit else { return Err(guest::copy::too_many()) };
            host.volumes.copy(&id, format).await
        }))
    }
}
