//! A placeholder until the store lands.
use base::*;
pub struct Cause {
    pub actor: String,
    pub request_id: RequestId,
    pub what: String,
}
pub struct Change {
    pub rev: u64,
    pub kind: String,
    pub id: String,
    pub project_id: String,
    pub body: Option<std::sync::Arc<str>>,
}
pub enum Event {
    Change(Change),
    Lost,
}
pub struct Watch;
impl Watch {
    pub async fn next(&mut self) -> Event {
        std::future::pending().await
    }
    pub fn try_next(&mut self) -> Option<Event> {
        None
    }
}
#[derive(Clone)]
pub struct Store;
impl Store {
    pub fn watch(&self) -> Watch {
        Watch
    }
}
pub struct Reader;
pub struct Tx;
