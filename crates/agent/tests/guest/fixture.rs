//! An agent in a folder of its own, with a control that knows one image.

use agent::{Agent, NoWiring, Options, Wiring};
use agent_api::{
    AgentFault, BoxStream, ControlLink, DesiredPower, DiskFormat, GuestObserved, GuestSpec, HostAgent,
    InstanceMetadata, LinkError, ObservedPower, OnCrash, PollAnswer, PollRequest, Report, RootDisk, ViewDelta,
    ViewObject,
};
use async_trait::async_trait;
use base::{CloudId, Env, HostName, ImageId, ServerId};
use qemu::process::{self, Seen};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

/// The user that guests run as.
pub const NOBODY: u32 = 65_534;
/// Long enough for a boot on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Fixture {
    folder: tempfile::TempDir,
    pub cloud: CloudId,
    pub boot_id: String,
    pub qemu: PathBuf,
    pub image: PathBuf,
    pub ksm: agent_api::SharingSetting,
    mounted: Option<PathBuf>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for seen in self.processes() {
            let pid = nix::unistd::Pid::from_raw(seen.pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        if let Some(mounted) = &self.mounted {
            let _ = nix::mount::umount2(mounted, nix::mount::MntFlags::MNT_DETACH);
        }
        for group in cgroups(&self.cloud) {
            let _ = std::fs::remove_dir(&group);
        }
    }
}

/// Control, as far as guests see it: one image.
struct Control(PathBuf);

#[async_trait]
impl ControlLink for Control {
    async fn poll(&self, _request: PollRequest) -> Result<PollAnswer, LinkError> {
        std::future::pending().await
    }
    async fn report(&self, _report: Report) -> Result<(), LinkError> {
        Ok(())
    }
    async fn answer_bytes(&self, _: &HostName, _: &str, _: Result<Vec<u8>, String>) -> Result<(), LinkError> {
        Ok(())
    }
    async fn answer_stream(&self, _: &HostName, _: &str, _: Result<BoxStream, String>) -> Result<(), LinkError> {
        Ok(())
    }
    async fn image(&self, _: &HostName, _: &ImageId) -> Result<File, LinkError> {
        File::open(&self.0).map_err(|error| LinkError(error.to_string()))
    }
}

pub fn missing(requirement: &str, why: &str) {
    let required = std::env::var("NUBO_REQUIRE").unwrap_or_default();
    let wanted = required == "all" || required.split(',').any(|it| it == requirement);
    assert!(!wanted, "{requirement} is required: {why}");
    println!("SKIP {why}");
}

impl Fixture {
    pub async fn new(name: &str) -> Option<Fixture> {
        if !nix::unistd::getuid().is_root() {
            missing("root", "guests are started as another user, which only root can");
            return None;
        }
        if Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
            missing("qemu", "qemu-system-x86_64 is not installed");
            return None;
        }
        let image = tiny_image();
        let folder = tempfile::Builder::new().prefix(&format!("nubo-test-{name}-")).tempdir().unwrap();
        // Of its own, also beside other tests of this process.
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let cloud = CloudId::new(format!("{:06x}{:02x}", std::process::id() & 0xff_ffff, count & 0xff));
        Some(Fixture {
            folder,
            cloud,
            boot_id: "this boot".into(),
            qemu: "qemu-system-x86_64".into(),
            image,
            ksm: Default::default(),
            mounted: None,
        })
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A copy of the test's image that may be spoiled, in the place of the one that all tests share.
    pub fn own_image(&mut self) {
        let own = self.folder.path().join("image.qcow2");
        let _ = std::fs::remove_file(&own);
        std::fs::copy(tiny_image(), &own).unwrap();
        self.image = own;
    }

    /// The host's file of an image.
    pub fn base(&self, spec: &GuestSpec) -> PathBuf {
        let root = spec.root.as_ref().unwrap();
        self.state().join("hosts/images").join(format!("{}.{}", root.sha512, root.format.as_str()))
    }

    pub fn folder(&self, spec: &GuestSpec) -> PathBuf {
        self.state().join("hosts/guests").join(spec.id.as_str())
    }

    pub async fn agent(&self) -> Arc<Agent> {
        self.agent_on(Arc::new(NoWiring)).await
    }

    pub async fn agent_on(&self, wiring: Arc<dyn Wiring>) -> Arc<Agent> {
        std::fs::create_dir_all(self.state()).unwrap();
        let options = Options {
            guest_user: Some((NOBODY, NOBODY)),
            boot_id: self.boot_id.clone(),
            qemu: self.qemu.clone(),
            accel: "tcg".into(),
            ksm: self.ksm,
            soft_deadline: Duration::from_secs(40),
            ..Options::new(self.state(), self.cloud.clone(), "host-1".into())
        };
        let link = Arc::new(Control(self.image.clone()));
        Arc::new(Agent::start(options, Env::system(), wiring, link).await.unwrap())
    }

    pub fn with_image(&self, spec: &GuestSpec) -> GuestSpec {
        let mut spec = spec.clone();
        // A test may have taken the image away again.
        if let (Some(root), Ok(about)) = (&mut spec.root, std::fs::metadata(&self.image)) {
            root.image_bytes = about.len();
        }
        spec
    }

    /// Gives the agent a spec, with the test's image in it.
    pub async fn put(&self, agent: &Agent, spec: &GuestSpec) {
        let spec = self.with_image(spec);
        while let Err(problem) = agent.apply(delta(&spec)).await {
            assert!(problem.contains("disk is full"), "{problem}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Gives the agent another object.
    pub async fn view(&self, agent: &Agent, object: ViewObject) {
        agent.apply(ViewDelta { version: 1, whole: false, put: vec![object], remove: Vec::new() }).await.unwrap();
    }

    pub async fn change(&self, agent: &Agent, spec: &mut GuestSpec, change: impl FnOnce(&mut GuestSpec)) {
        spec.generation += 1;
        change(spec);
        self.put(agent, spec).await;
    }

    pub async fn observed(
        &self,
        agent: &Agent,
        id: &ServerId,
        what: &str,
        holds: impl Fn(&GuestObserved) -> bool,
    ) -> GuestObserved {
        let begun = Instant::now();
        loop {
            let report = agent.observe(true).await;
            let seen = report.guests.into_iter().find(|it| it.id == *id);
            if let Some(seen) = &seen
                && holds(seen)
            {
                return seen.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "no {what}; seen {seen:?}\n{}", self.logs(id));
            let _ = tokio::time::timeout(Duration::from_millis(500), agent.observe(false)).await;
        }
    }

    fn logs(&self, id: &ServerId) -> String {
        let folder = self.state().join("hosts/guests").join(id.as_str());
        let read =
            |name: &str| String::from_utf8_lossy(&std::fs::read(folder.join(name)).unwrap_or_default()).into_owned();
        format!("--- qemu\n{}\n--- console\n{}", read("qemu.log"), read("console.log"))
    }

    /// Waits until the spec's generation is reached with this power and without a fault.
    pub async fn until(&self, agent: &Agent, spec: &GuestSpec, power: ObservedPower) -> GuestObserved {
        let what = format!("{power:?} at generation {}", spec.generation);
        let reached = |it: &GuestObserved| it.power == power && it.generation == spec.generation && it.fault.is_none();
        self.observed(agent, &spec.id, &what, reached).await
    }

    pub async fn until_fault(&self, agent: &Agent, spec: &GuestSpec) -> AgentFault {
        self.observed(agent, &spec.id, "fault", |it| it.fault.is_some()).await.fault.unwrap()
    }

    pub async fn console(&self, agent: &Agent, spec: &GuestSpec) -> String {
        String::from_utf8_lossy(&agent.console_log(&spec.id, 1 << 20).await.unwrap()).into_owned()
    }

    pub async fn until_console(&self, agent: &Agent, spec: &GuestSpec, holds: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let log = self.console(agent, spec).await;
            if holds(&log) {
                return log;
            }
            assert!(begun.elapsed() < PATIENCE, "the console shows:\n{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The guests' processes that have not ended.
    pub fn processes(&self) -> Vec<Seen> {
        process::find(&format!("nubo-{}-", self.cloud)).into_iter().filter(|it| it.name.ends_with("@host-1")).collect()
    }

    pub fn process(&self, spec: &GuestSpec) -> Option<Seen> {
        self.processes().into_iter().find(|it| it.name.contains(spec.id.as_str()))
    }

    pub fn kill(&self, spec: &GuestSpec) {
        assert!(self.kill_if_there(spec));
    }

    /// False: it has no process.
    pub fn kill_if_there(&self, spec: &GuestSpec) -> bool {
        let Some(seen) = self.process(spec) else { return false };
        let pid = nix::unistd::Pid::from_raw(seen.pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_ok()
    }

    /// Puts the state onto a file system that is too small for the image.
    pub fn small_state(&mut self) -> Option<Small> {
        self.small(self.state(), "size=1m")
    }

    /// Puts the volumes onto a file system of their own.
    pub fn small_volumes(&mut self, size: &str) -> Option<Small> {
        self.small(self.state().join("hosts/volumes"), size)
    }

    /// Puts the volumes onto an ext4 of its own, in a file.
    pub fn loop_volumes(&mut self, mib: u64) -> Option<Loop> {
        let path = self.state().join("hosts/volumes");
        std::fs::create_dir_all(&path).unwrap();
        let file = self.folder.path().join("ext4");
        File::create(&file).and_then(|it| it.set_len(mib << 20)).unwrap();
        let made = Loop { file, path: path.clone() };
        let made_ext4 = Command::new("mkfs.ext4").arg("-q").arg(&made.file).status().is_ok_and(|it| it.success());
        if !made_ext4 || !made.mount() {
            missing("root", "no loop device can be mounted");
            return None;
        }
        self.mounted = Some(path);
        Some(made)
    }

    pub fn volume_file(&self, volume: &agent_api::VolumeSpec, name: &str) -> PathBuf {
        self.state().join("hosts/volumes").join(volume.id.as_str()).join(name)
    }

    fn small(&mut self, path: PathBuf, size: &str) -> Option<Small> {
        std::fs::create_dir_all(&path).unwrap();
        if let Err(error) = tmpfs(&path, nix::mount::MsFlags::empty(), size) {
            missing("root", &format!("no tmpfs can be mounted: {error}"));
            return None;
        }
        self.mounted = Some(path.clone());
        Some(Small(path))
    }
}

/// A file system that can be broken.
pub struct Loop {
    file: PathBuf,
    path: PathBuf,
}

impl Loop {
    fn mount(&self) -> bool {
        let options = "loop,errors=remount-ro";
        Command::new("mount")
            .args(["-o", options])
            .arg(&self.file)
            .arg(&self.path)
            .status()
            .is_ok_and(|it| it.success())
    }

    /// As after an error that it cannot go on from: nothing is written any more, also by who has a file open.
    pub fn give_up(&self) {
        let done = Command::new("mount").args(["-o", "remount,abort"]).arg(&self.path).output().unwrap();
        let text = format!("{}/.", self.path.display());
        assert!(File::create(format!("{text}written")).is_err(), "{done:?}");
    }

    /// Repaired and mounted again.
    pub fn mend(&self) {
        self.remove();
        let _ = Command::new("fsck.ext4").args(["-fpq"]).arg(&self.file).output();
        assert!(self.mount());
    }

    pub fn remove(&self) {
        nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

pub struct Small(PathBuf);

impl Small {
    /// To the last byte, until it grows.
    pub fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    }

    pub fn grow(&self) {
        let _ = std::fs::remove_file(self.0.join("filler"));
        tmpfs(&self.0, nix::mount::MsFlags::MS_REMOUNT, "size=2g").unwrap();
    }
}

fn tmpfs(path: &Path, flags: nix::mount::MsFlags, size: &str) -> nix::Result<()> {
    nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(size))
}

pub fn delta(spec: &GuestSpec) -> ViewDelta {
    ViewDelta { version: 1, whole: false, put: vec![ViewObject::Guest(spec.clone())], remove: Vec::new() }
}

/// A small guest with a config drive and no ports.
pub fn spec(number: u32) -> GuestSpec {
    let id = ServerId::new(format!("5f2b0a6e-0001-4000-8000-{number:012}"));
    GuestSpec {
        id: id.clone(),
        generation: 2,
        power: DesiredPower::Running,
        power_generation: 1,
        at_once: false,
        soft_reboots: 0,
        hard_reboots: 0,
        vcpus: 1,
        memory_mib: 128,
        root: Some(RootDisk {
            image: "tiny".into(),
            format: DiskFormat::Qcow2,
            sha512: sha512(),
            image_bytes: 0,
            size_gib: 1,
            flat: false,
        }),
        volumes: Vec::new(),
        nics: Vec::new(),
        on_crash: OnCrash::Stop,
        config_drive: true,
        metadata: InstanceMetadata { uuid: id, name: "web 1".into(), hostname: "web-1".into(), ..Default::default() },
    }
}

fn sha512() -> String {
    use sha2::Digest;
    static DIGEST: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let digest = DIGEST.get_or_init(|| {
        let image = std::fs::read(tiny_image()).unwrap();
        sha2::Sha512::digest(image).iter().map(|byte| format!("{byte:02x}")).collect()
    });
    digest.clone()
}

fn tiny_image() -> PathBuf {
    static IMAGE: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let built = || {
        let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tiny");
        tiny::cached(&work).unwrap_or_else(|error| panic!("the tiny guest cannot be built: {error:#}"))
    };
    IMAGE.get_or_init(built).clone()
}

pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Paths of the control groups that bear the cloud's id.
pub fn cgroups(cloud: &CloudId) -> Vec<String> {
    let mut found = Vec::new();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    for mount in mounts.lines().filter(|line| line.contains(" cgroup")).filter_map(|line| line.split(' ').nth(1)) {
        let group = Path::new(mount).join(format!("nubo-{cloud}"));
        if let Ok(inner) = std::fs::read_dir(&group) {
            let inner = inner.flatten().filter(|it| it.path().is_dir());
            found.extend(inner.map(|it| it.path().display().to_string()));
            found.push(group.display().to_string());
        }
    }
    found
}

/// Another user, no new privileges, a session and groups of its own.
pub fn assert_confined(seen: &Seen, cloud: &CloudId, id: &ServerId) {
    assert_eq!(seen.uid, NOBODY);
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", seen.pid)).unwrap();
    let status = read("status");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "Groups:\t \n"] {
        assert!(status.contains(line), "{line:?} is missing in\n{status}");
    }
    let stat = read("stat");
    let session = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(session, seen.pid.to_string());
    let groups = read("cgroup");
    assert!(groups.contains(&format!("/nubo-{cloud}/{id}")), "{groups}");
    // It has no file open but those that it was given: nothing below the state directory but its own.
    for link in std::fs::read_dir(format!("/proc/{}/fd", seen.pid)).unwrap().flatten() {
        let target = std::fs::read_link(link.path()).unwrap_or_default();
        let text = target.to_string_lossy();
        assert!(!text.contains("ledger"), "{text}");
    }
}

pub async fn read_until(stream: &mut BoxStream, wanted: &str) {
    let read = async {
        let mut text = Vec::new();
        let mut piece = [0u8; 1024];
        while !String::from_utf8_lossy(&text).contains(wanted) {
            let read = stream.read(&mut piece).await.unwrap();
            assert!(read > 0, "the stream ended at {:?}", String::from_utf8_lossy(&text));
            text.extend(&piece[..read]);
        }
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("no {wanted:?} came"));
}

pub async fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
