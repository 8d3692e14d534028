//! Documents to test with.

use base::{Env, Fault};
use serde::{Deserialize, Serialize};
use store::{Cause, Document, Keys, Store, Tx};

/// Has an index, a unique key, a project and a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub host: String,
    #[serde(default)]
    pub secret: String,
}

impl Port {
    pub fn new(id: &str, project_id: &str, name: &str) -> Port {
        Port {
            id: id.into(),
            project_id: project_id.into(),
            name: name.into(),
            host: "h1".into(),
            secret: "hidden".into(),
        }
    }

    pub fn on(self, host: &str) -> Port {
        Port { host: host.into(), ..self }
    }

    pub fn redacted(self) -> Port {
        Port { secret: "***".into(), ..self }
    }
}

impl Document for Port {
    const KIND: &'static str = "port";

    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.index("host", &self.host);
        keys.unique("name", [&self.project_id, &self.name]);
    }
    fn redact(body: &mut serde_json::Value) {
        body["secret"] = "***".into();
    }
}

/// Rewritten often: no history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub id: String,
    pub percent: u32,
}

impl Document for Progress {
    const KIND: &'static str = "progress";
    const HISTORY: bool = false;

    fn id(&self) -> &str {
        &self.id
    }
}

pub fn cause(what: &str) -> Cause {
    Cause::new("tester", format!("req-{what}"), what)
}

pub fn env() -> Env {
    Env::system()
}

/// Writes and expects that it works.
pub async fn write<R: Send + 'static>(
    store: &Store,
    what: &str,
    closure: impl FnMut(&mut Tx) -> Result<R, Fault> + Send + 'static,
) -> store::Committed<R> {
    store.write(cause(what), closure).await.unwrap_or_else(|fault| panic!("{what}: {}", fault.chain()))
}

/// Creates ports and expects that it works.
pub async fn create(store: &Store, ports: Vec<Port>) -> store::Rev {
    let created = write(store, "create", move |tx| {
        for port in &ports {
            tx.create(port)?;
        }
        Ok(())
    });
    created.await.rev
}

pub fn ids<T: Document>(list: &[store::Stored<T>]) -> Vec<&str> {
    list.iter().map(|stored| stored.doc.id()).collect()
}
