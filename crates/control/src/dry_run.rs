//! What a dry run means beyond the documents that it would change: who loses traffic.

use base::Result;
use rest::Effects;
use serde_json::{Value, json};
use store::scope::Note;
use store::{Difference, Store};

pub(crate) struct Meaning {
    pub store: Store,
}

#[async_trait::async_trait]
impl Effects for Meaning {
    async fn notes(&self, differences: &[Difference]) -> Result<Vec<Note>> {
        let differences = differences.to_vec();
        let losers = self.store.read(move |reader| network::traffic::losers(reader, &differences)).await?;
        let rows: Vec<Value> = losers
            .iter()
            .map(|loser| {
                json!({"port": loser.port, "project_id": loser.project_id, "device": loser.device_id, "why": loser.why})
            })
            .collect();
        // Who it is may be of another project; that somebody loses traffic is what a caller must know.
        Ok(vec![Note { name: "traffic", public: json!({"ports": rows.len()}), admin: rows.into() }])
    }
}
