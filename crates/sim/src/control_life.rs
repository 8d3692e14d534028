//! The control process: started from the store's bytes, ended anywhere, and the store's hooks that do it.

use crate::faults::{Kind, Point};
use crate::life::Life;
use crate::world::World;
use control::{Bootstrap, Cloud, CloudOptions};
use std::sync::{Arc, Weak};
use std::time::Duration;
use store::{Cause, Error, Hooks, Waiting};

#[derive(Clone)]
pub struct Process {
    pub cloud: Cloud,
    pub life: Life,
}

pub const ADMIN_PASSWORD: &str = "admin-password";
pub const DEMO_PASSWORD: &str = "demo-password";

fn options(world: &World) -> CloudOptions {
    CloudOptions {
        store_url: format!("sqlite:{}", world.folder.join("nubo.db").display()),
        public_url: "http://cloud".into(),
        images: world.folder.join("images"),
        image_cache: None,
        image_stores: [
            ("second".to_owned(), world.folder.join("images-2").into()),
            (crate::objects::NAME.to_owned(), control::ImagePlace::Driver(world.objects.clone()).into()),
        ]
        .into(),
        image_default_store: None,
        policy: None,
        bcrypt_rounds: 4,
        image_format_enforcement: true,
        image_import: control::ImageImport { web: Some(Arc::new(crate::calls::Elsewhere)), ..Default::default() },
        image_protections: None,
        compliance: Default::default(),
        limit_model: Default::default(),
        federation: Default::default(),
        directories: None,
        token_provider: Default::default(),
        auth_methods: Default::default(),
        login_limit: Default::default(),
        bootstrap: Bootstrap {
            cloud_id: "0a1b2c3d".into(),
            admin_password: ADMIN_PASSWORD.into(),
            demo_password: DEMO_PASSWORD.into(),
            secret_keys: vec!["YSBrZXkgZm9yIHRlc3RzLCBvZiAzMiBieXRlcyAuLi4=".into()],
        },
        masquerade: None,
        history_retention_s: control::HISTORY_RETENTION_S,
        trash_retention_s: world.retention_s,
        reclaim_instance_interval_s: 0,
        deadlines: crate::run::late::deadlines(),
    }
}

/// Starts a control process. What it leaves behind when it dies can do nothing: its handle to the store is fenced.
pub async fn start(world: &Arc<World>, life: &Life) -> base::Result<Process> {
    let hooks = Arc::new(Beside { world: Arc::downgrade(world), life: life.clone() });
    let adjust = |mut store: store::Options| {
        store.hooks = Some(hooks);
        store.durable = false;
        store.inline()
    };
    let cloud = Cloud::open_with(options(world), world.env.clone(), adjust).await?;
    Ok(Process { cloud, life: life.clone() })
}

/// Keeps a control process running, as a supervisor does. Never returns.
pub async fn keep(world: Arc<World>) {
    loop {
        let life = Life::default();
        let started = tokio::select! {
            biased;
            () = life.over() => None,
            started = start(&world, &life) => Some(started),
        };
        match started {
            Some(Ok(process)) => {
                world.say("control is up");
                world.set_control(Some(process));
                life.over().await;
            }
            Some(Err(fault)) => world.say(format!("control does not start: {}", fault.chain())),
            None => {}
        }
        life.end();
        world.troubled();
        world.set_control(None);
        let ms = world.down_ms();
        world.say(format!("control is down for {ms} ms"));
        tokio::time::sleep(Duration::from_millis(ms)).await;
        world.troubled();
    }
}

/// Stands beside the store of one life.
struct Beside {
    world: Weak<World>,
    life: Life,
}

fn dead() -> Error {
    Error::Unavailable(crate::DEAD.into())
}

impl Beside {
    /// Nothing of a dead process passes.
    fn world(&self) -> Result<Arc<World>, Error> {
        self.world.upgrade().filter(|_| !self.life.is_over()).ok_or_else(dead)
    }

    async fn pass(&self, point: Point, who: &str) -> Result<(), Error> {
        let world = self.world()?;
        match world.pass(point, who) {
            Some((Kind::CrashControl, _)) => self.life.end(),
            Some((Kind::SlowStore, ms)) => tokio::time::sleep(Duration::from_millis(ms)).await,
            _ => {}
        }
        self.world().map(drop)
    }
}

impl Hooks for Beside {
    fn before_write<'a>(&'a self, cause: &'a Cause) -> Waiting<'a> {
        Box::pin(self.pass(Point::BeforeCommit, &cause.what))
    }

    fn commit(&self) -> Result<(), Error> {
        match self.world()?.pass(Point::Commit, "the store") {
            Some((Kind::FullDisk, _)) => Err(Error::Unavailable("database or disk is full".into())),
            _ => Ok(()),
        }
    }

    fn after_write<'a>(&'a self, cause: &'a Cause) -> Waiting<'a> {
        if let Ok(world) = self.world() {
            world.say(format!("commit {} {}", cause.what, cause.request_id));
        }
        Box::pin(self.pass(Point::AfterCommit, &cause.what))
    }

    fn before_read(&self) -> Waiting<'_> {
        Box::pin(self.pass(Point::BeforeRead, "a read"))
    }
}
