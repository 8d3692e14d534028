//! A cloud as every history finds it: set up once a process, copied for each seed as bytes.

use crate::client::{Actor, Ask, Tokens, send};
use crate::clock::SimClock;
use crate::control_life::{self, ADMIN_PASSWORD, DEMO_PASSWORD};
use crate::known::Known;
use crate::life::Life;
use crate::world::World;
use anyhow::{Context, Result, bail};
use base::random::SeededRandom;
use base::{Env, Timestamp};
use http::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

pub struct Template {
    folder: TempDir,
    pub actors: Vec<Actor>,
    pub known: Known,
    /// When it was done.
    pub at: Timestamp,
}

/// Time that nobody waits for.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?)
}

/// Where histories keep their files: memory, if the machine has a folder for that.
pub fn scratch() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let builder = |at: &Path| tempfile::Builder::new().prefix("nubo-sim-").tempdir_in(at);
    Ok(builder(memory).or_else(|_| builder(&std::env::temp_dir()))?)
}

impl Template {
    pub fn build() -> Result<Template> {
        let folder = scratch()?;
        let path = folder.path().to_owned();
        let (actors, known, at) = runtime()?.block_on(async move {
            let clock = Arc::new(SimClock::new(None));
            let env = Env { clock: clock.clone(), random: Arc::new(SeededRandom::new(0)) };
            let world = World::new(env.clone(), clock, 0, path, 0);
            let process =
                control_life::start(&world, &Life::default()).await.map_err(|fault| anyhow::anyhow!(fault.chain()))?;
            world.set_control(Some(process));
            let (actors, known) = Maker::new(&world).make().await?;
            world.set_control(None);
            anyhow::Ok((actors, known, env.now()))
        })?;
        Ok(Template { folder, actors, known, at })
    }

    /// Its bytes into another folder.
    pub fn copy(&self, to: &Path) -> Result<()> {
        for entry in std::fs::read_dir(self.folder.path())? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
        }
        let images = to.join("images");
        std::fs::create_dir_all(&images)?;
        for entry in std::fs::read_dir(self.folder.path().join("images"))? {
            let entry = entry?;
            // Names by content are names of the same files, which are copied here: they would be of other ones.
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), images.join(entry.file_name()))?;
            }
        }
        Ok(())
    }
}

struct Maker<'a> {
    world: &'a World,
    tokens: Tokens,
    actors: Vec<Actor>,
    known: Known,
}

impl<'a> Maker<'a> {
    fn new(world: &'a World) -> Maker<'a> {
        let actor = |name, password: &str| Actor {
            name,
            password: password.into(),
            user_id: String::new(),
            project_id: String::new(),
        };
        let actors = vec![actor("admin", ADMIN_PASSWORD), actor("demo", DEMO_PASSWORD), actor("blue", "blue-password")];
        Maker { world, tokens: Tokens::default(), actors, known: Known::default() }
    }

    async fn make(mut self) -> Result<(Vec<Actor>, Known)> {
        self.people().await?;
        self.lists().await?;
        self.known.fix_all();
        self.things().await?;
        Ok((self.actors, self.known))
    }

    async fn call(&mut self, actor: usize, method: Method, path: &str, body: Value) -> Result<Value> {
        let upload = path.ends_with("/file");
        let kind = if upload { "application/octet-stream" } else { "application/json" };
        let body = match body {
            Value::Null => Vec::new(),
            Value::String(text) => text.into_bytes(),
            other => other.to_string().into_bytes(),
        };
        let ask = Ask {
            service: "",
            operation: "",
            method,
            path: path.into(),
            headers: vec![("content-type", kind.into()), ("x-openstack-nova-api-version", "2.60".into())],
            body,
            actor,
        };
        let answer = send(self.world, &self.tokens, &self.actors, &ask).await.context("control died")?;
        if !answer.is_ok() {
            bail!("{} {path}: {} {}", ask.method, answer.status, answer.json);
        }
        let class = path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        if !upload && !class.starts_with("add_") {
            self.known.hear(class, &answer.json, Some(actor), false);
        }
        Ok(answer.json)
    }

    async fn post(&mut self, actor: usize, path: &str, body: Value) -> Result<String> {
        let made = self.call(actor, Method::POST, path, body).await?;
        let object = if made["id"].is_string() {
            &made
        } else {
            made.as_object().and_then(|map| map.values().next()).unwrap_or(&made)
        };
        Ok(object["id"].as_str().with_context(|| format!("{path} made nothing with an id"))?.to_owned())
    }

    /// The administrator knows only the names of the projects before the first login.
    async fn people(&mut self) -> Result<()> {
        let login = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": "admin", "password": ADMIN_PASSWORD, "domain": {"id": "default"}}}},
            "scope": {"project": {"name": "admin", "domain": {"id": "default"}}}}});
        let ask = Ask {
            service: "",
            operation: "",
            method: Method::POST,
            path: "/identity/v3/auth/tokens".into(),
            headers: vec![("content-type", "application/json".into())],
            body: login.to_string().into_bytes(),
            actor: 0,
        };
        let answer = crate::client::raw(self.world, &ask, None).await.context("no answer")?;
        self.tokens.set(0, Some(answer.token.with_context(|| format!("no token: {}", answer.json))?));
        let roles = self.call(0, Method::GET, "/identity/v3/roles", Value::Null).await?;
        let member = roles["roles"].as_array().into_iter().flatten().find(|role| role["name"] == "member");
        let member = member.and_then(|role| role["id"].as_str()).context("no role member")?.to_owned();
        let project = json!({"project": {"name": "blue", "domain_id": "default"}});
        let project = self.post(0, "/identity/v3/projects", project).await?;
        let user = json!({"user": {"name": "blue", "password": "blue-password", "domain_id": "default"}});
        let user = self.post(0, "/identity/v3/users", user).await?;
        let grant = format!("/identity/v3/projects/{project}/users/{user}/roles/{member}");
        self.call(0, Method::PUT, &grant, Value::Null).await?;
        for list in ["users", "projects"] {
            let found = self.call(0, Method::GET, &format!("/identity/v3/{list}"), Value::Null).await?;
            for item in found[list].as_array().into_iter().flatten() {
                let (name, id) = (item["name"].as_str().unwrap_or_default(), item["id"].as_str().unwrap_or_default());
                if let Some(actor) = self.actors.iter_mut().find(|actor| actor.name == name) {
                    *(if list == "users" { &mut actor.user_id } else { &mut actor.project_id }) = id.to_owned();
                }
            }
        }
        Ok(())
    }

    /// What must not be harmed.
    async fn lists(&mut self) -> Result<()> {
        for list in ["domains", "groups", "regions", "services", "endpoints"] {
            self.call(0, Method::GET, &format!("/identity/v3/{list}"), Value::Null).await?;
        }
        let types = format!("/volume/v3/{}/types", self.actors[0].project_id);
        self.call(0, Method::GET, &types, Value::Null).await?;
        let image = json!({"name": "tiny", "disk_format": "raw", "container_format": "bare", "visibility": "public"});
        let image = self.post(0, "/image/v2/images", image).await?;
        let bytes = Value::String("0123456789abcdef".repeat(64));
        self.call(0, Method::PUT, &format!("/image/v2/images/{image}/file"), bytes).await?;
        for (name, ram, vcpus) in [("small", 128, 1), ("medium", 1024, 2)] {
            let flavor = json!({"flavor": {"name": name, "ram": ram, "vcpus": vcpus, "disk": 1}});
            self.post(0, "/compute/v2.1/flavors", flavor).await?;
        }
        Ok(())
    }

    async fn things(&mut self) -> Result<()> {
        let network = json!({"network": {"name": "public", "router:external": true,
            "provider:network_type": "flat", "provider:physical_network": "public"}});
        let public = self.post(0, "/network/v2.0/networks", network).await?;
        let subnet = json!({"subnet": {"name": "public", "network_id": public, "ip_version": 4,
            "cidr": "172.24.4.0/27", "gateway_ip": "172.24.4.1", "enable_dhcp": false}});
        self.post(0, "/network/v2.0/subnets", subnet).await?;
        for actor in [1, 2] {
            let name = self.actors[actor].name;
            let network = json!({"network": {"name": format!("{name}-net")}});
            let network = self.post(actor, "/network/v2.0/networks", network).await?;
            let subnet = json!({"subnet": {"name": name, "network_id": network, "ip_version": 4,
                "cidr": format!("10.{actor}.0.0/26")}});
            let subnet = self.post(actor, "/network/v2.0/subnets", subnet).await?;
            let router = json!({"router": {"name": name, "external_gateway_info": {"network_id": public}}});
            let router = self.post(actor, "/network/v2.0/routers", router).await?;
            let path = format!("/network/v2.0/routers/{router}/add_router_interface");
            self.call(actor, Method::PUT, &path, json!({"subnet_id": subnet})).await?;
        }
        Ok(())
    }
}
