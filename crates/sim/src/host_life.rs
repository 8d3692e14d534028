//! A host: its machine, the agents that live on it one after the other, and its link to control.

use crate::control_life::Process;
use crate::faults::{Kind, Point};
use crate::life::Life;
use crate::world::World;
use agent_api::{
    BoxStream, ControlLink, DiskFormat, HostAgent, HostInventory, LinkError, PollAnswer, PollRequest, Report, ViewDelta,
};
use async_trait::async_trait;
use base::{HostName, ImageId, ServerId, VolumeId};
use simhost::{Machine, Options, SimHost, Trouble};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

/// How often a host looks whether something is due.
const TICK: Duration = Duration::from_millis(250);

/// A disk's stream that breaks does so after so many bytes.
const TORN_BYTES: u64 = 70_000;

/// A place for a machine.
pub struct Slot {
    pub name: HostName,
    options: Options,
    inside: Mutex<Inside>,
    /// No agent starts on it for now.
    away: AtomicBool,
}

enum Inside {
    /// No agent runs; the machine may be off.
    Down {
        machine: Machine,
        cut: bool,
    },
    Up {
        agent: Arc<SimHost>,
        life: Life,
    },
}

impl Slot {
    pub fn new(world: &World, options: Options) -> Slot {
        let inside = Inside::Down { machine: Machine::new(&world.host_env), cut: false };
        Slot { name: options.name.clone(), options, inside: Mutex::new(inside), away: false.into() }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_up(&self) -> bool {
        matches!(&*self.inside(), Inside::Up { .. })
    }

    pub fn agent(&self) -> Option<Arc<SimHost>> {
        match &*self.inside() {
            Inside::Up { agent, .. } => Some(agent.clone()),
            Inside::Down { .. } => None,
        }
    }

    /// The volumes on the machine, whether an agent runs or not.
    pub fn volumes(&self) -> Vec<agent_api::VolumeObserved> {
        match &*self.inside() {
            Inside::Up { agent, .. } => agent.volumes(),
            Inside::Down { machine, .. } => machine.volumes(),
        }
    }

    /// The guests on the machine, whether an agent runs or not.
    pub fn guests(&self) -> Vec<agent_api::GuestObserved> {
        match &*self.inside() {
            Inside::Up { agent, .. } => agent.guests(),
            Inside::Down { machine, .. } => machine.guests(),
        }
    }

    /// Kills the agent, or cuts the machine's power: what is in memory is gone from this moment on.
    pub fn kill(&self, kind: Kind) {
        let mut inside = self.inside();
        if let Inside::Up { agent, life } = &*inside {
            life.end();
            let machine = agent.machine();
            *inside = Inside::Down { machine, cut: kind == Kind::CrashHost };
        }
    }

    /// Whoever is killed from now on does not come back before this is taken back.
    pub fn keep_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    fn start(&self, world: &World) -> (Arc<SimHost>, Life) {
        let mut inside = self.inside();
        let machine = match &*inside {
            Inside::Down { machine, .. } => machine.clone(),
            Inside::Up { agent, .. } => agent.machine(),
        };
        let agent = Arc::new(SimHost::start(world.host_env.clone(), self.options.clone(), machine));
        let life = Life::default();
        *inside = Inside::Up { agent: agent.clone(), life: life.clone() };
        (agent, life)
    }

    /// The processes go with the power at once; how long the machine stays off is another matter.
    fn power(&self, world: &World) {
        if let Inside::Down { machine, cut } = &mut *self.inside()
            && std::mem::take(cut)
        {
            machine.power_cut(&world.host_env);
        }
    }
}

/// Keeps an agent running on a machine. Never returns.
pub async fn keep(world: Arc<World>, slot: Arc<Slot>) {
    loop {
        let (agent, life) = slot.start(&world);
        world.say(format!("{} is up", slot.name));
        let side = Side { world: world.clone(), slot: slot.clone(), agent: agent.clone(), life: life.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(control::host(Arc::new(side.clone()), side));
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                agent.tick();
            }
        });
        life.over().await;
        tasks.abort_all();
        slot.power(&world);
        let ms = world.down_ms();
        world.say(format!("{} is down for {ms} ms", slot.name));
        tokio::time::sleep(Duration::from_millis(ms)).await;
        while slot.away.load(Ordering::SeqCst) {
            tokio::time::sleep(TICK).await;
        }
        world.troubled();
    }
}

/// One agent with its link: each call passes its points.
#[derive(Clone)]
struct Side {
    world: Arc<World>,
    slot: Arc<Slot>,
    agent: Arc<SimHost>,
    life: Life,
}

/// How a call goes on after a point.
enum Then {
    Go,
    Lost,
    Twice,
    Late(u64),
}

impl Side {
    /// Passes a point. Does not return where the agent dies there.
    async fn pass(&self, point: Point) -> Then {
        if self.life.is_over() {
            std::future::pending::<()>().await;
        }
        match self.world.pass(point, &self.slot.name) {
            Some((kind @ (Kind::CrashAgent | Kind::CrashHost), _)) => {
                self.slot.kill(kind);
                std::future::pending().await
            }
            Some((Kind::CrashControl, _)) => {
                self.world.kill_control();
                Then::Go
            }
            Some((Kind::Delay, ms)) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Then::Go
            }
            Some((Kind::Lose | Kind::FullDisk, _)) => Then::Lost,
            Some((Kind::Double, _)) => Then::Twice,
            Some((Kind::Reorder, ms)) => Then::Late(ms),
            _ => Then::Go,
        }
    }

    fn process(&self) -> Result<Process, LinkError> {
        self.world.process().ok_or_else(|| LinkError("nobody listens".into()))
    }

    /// One call to control: it breaks when control dies under it.
    async fn carry<T>(
        &self,
        points: (Point, Point),
        call: impl Fn(control::Link) -> Pin<Box<dyn Future<Output = Result<T, LinkError>> + Send>>,
    ) -> Result<T, LinkError> {
        let before = self.pass(points.0).await;
        if matches!(before, Then::Lost) {
            return Err(LinkError("the call was lost".into()));
        }
        if matches!(before, Then::Twice) {
            let process = self.process()?;
            let first = tokio::time::timeout(Duration::from_millis(700), call(process.cloud.link()));
            // Its answer was lost.
            drop(alive(&process, first).await);
        }
        let process = self.process()?;
        let answer = alive(&process, call(process.cloud.link())).await??;
        match self.pass(points.1).await {
            Then::Lost => Err(LinkError("the answer was lost".into())),
            _ => Ok(answer),
        }
    }
}

async fn alive<T>(process: &Process, work: impl Future<Output = T>) -> Result<T, LinkError> {
    tokio::select! {
        biased;
        () = process.life.over() => Err(LinkError("control died".into())),
        answer = work => Ok(answer),
    }
}

#[async_trait]
impl ControlLink for Side {
    async fn poll(&self, request: PollRequest) -> Result<PollAnswer, LinkError> {
        let points = (Point::BeforePoll, Point::AfterPoll);
        let call = move |link: control::Link| -> Pin<Box<dyn Future<Output = _> + Send>> {
            let request = request.clone();
            Box::pin(async move { link.poll(request).await })
        };
        self.carry(points, call).await
    }

    async fn report(&self, report: Report) -> Result<(), LinkError> {
        let point = match self.pass(Point::BeforeReport).await {
            Then::Go => return self.tell(report).await,
            other => other,
        };
        match point {
            Then::Late(ms) => {
                // The connection broke; the request sits in some queue and arrives after what is sent now.
                let process = self.process()?;
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    drop(alive(&process, process.cloud.link().report(report)).await);
                });
                Err(LinkError("the connection broke".into()))
            }
            Then::Twice => {
                drop(self.tell(report.clone()).await);
                self.tell(report).await
            }
            _ => Err(LinkError("the report was lost".into())),
        }
    }

    async fn answer_bytes(
        &self,
        host: &HostName,
        order: &str,
        answer: Result<Vec<u8>, String>,
    ) -> Result<(), LinkError> {
        let points = (Point::BeforeAnswer, Point::AfterAnswer);
        let (host, order) = (host.clone(), order.to_owned());
        let call = move |link: control::Link| -> Pin<Box<dyn Future<Output = _> + Send>> {
            let (host, order, answer) = (host.clone(), order.clone(), answer.clone());
            Box::pin(async move { link.answer_bytes(&host, &order, answer).await })
        };
        self.carry(points, call).await
    }

    async fn answer_stream(
        &self,
        host: &HostName,
        order: &str,
        answer: Result<BoxStream, String>,
    ) -> Result<(), LinkError> {
        let process = self.process()?;
        alive(&process, process.cloud.link().answer_stream(host, order, answer)).await?
    }

    async fn image(&self, host: &HostName, image: &ImageId) -> Result<std::fs::File, LinkError> {
        let process = self.process()?;
        alive(&process, process.cloud.link().image(host, image)).await?
    }
}

impl Side {
    async fn tell(&self, report: Report) -> Result<(), LinkError> {
        let process = self.process()?;
        alive(&process, process.cloud.link().report(report)).await??;
        match self.pass(Point::AfterReport).await {
            Then::Lost => Err(LinkError("the answer was lost".into())),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl HostAgent for Side {
    fn inventory(&self) -> HostInventory {
        self.agent.inventory()
    }

    async fn apply(&self, delta: ViewDelta) -> Result<(), String> {
        if let Some((kind @ (Kind::StartFails | Kind::StartRetries), _)) =
            self.world.pass(Point::Start, &self.slot.name)
        {
            let retried = kind == Kind::StartRetries;
            self.agent.fail_starts(1, Trouble { message: "There is no room for the disk.".into(), retried });
        }
        if matches!(self.pass(Point::BeforeApply).await, Then::Lost) {
            return Err("the ledger's disk is full".into());
        }
        self.agent.apply(delta.clone()).await?;
        match self.pass(Point::AfterApply).await {
            Then::Lost => Err("the ledger's disk is full".into()),
            Then::Twice => self.agent.apply(delta).await,
            _ => Ok(()),
        }
    }

    async fn observe(&self, whole: bool) -> Report {
        self.pass(Point::BeforeObserve).await;
        let report = self.agent.observe(whole).await;
        self.pass(Point::AfterObserve).await;
        report
    }

    async fn console_log(&self, server: &ServerId, bytes: u64) -> Result<Vec<u8>, String> {
        self.agent.console_log(server, bytes).await
    }

    async fn console(&self, server: &ServerId, serial: bool) -> Result<BoxStream, String> {
        self.agent.console(server, serial).await
    }

    async fn disk(&self, server: &ServerId) -> Result<BoxStream, String> {
        Ok(self.sent(self.agent.disk(server).await?))
    }

    async fn volume(&self, volume: &VolumeId, format: DiskFormat) -> Result<BoxStream, String> {
        Ok(self.sent(self.agent.volume(volume, format).await?))
    }
}

impl Side {
    /// What of a copy comes through.
    fn sent(&self, copy: BoxStream) -> BoxStream {
        let (mut ours, theirs) = tokio::io::duplex(4096);
        let (side, life) = (self.clone(), self.life.clone());
        let send = async move {
            let most = if matches!(side.pass(Point::Disk).await, Then::Lost) { TORN_BYTES } else { u64::MAX };
            // Whoever no longer listens misses nothing.
            tokio::io::copy(&mut copy.take(most), &mut ours).await.ok();
        };
        tokio::spawn(async move {
            // What an agent sends ends with it.
            tokio::select! {
                biased;
                () = life.over() => {}
                () = send => {}
            }
        });
        Box::pin(theirs)
    }
}
