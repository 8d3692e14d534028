//! A host stays away for longer than anything that waits for it may take: that ends all the same, and says why.

use super::late::{LATE, deadlines};
use super::{History, OUTLASTED};
use crate::calls::ADMIN;
use crate::check::Held;
use crate::client::Ask;
use crate::faults::Kind;
use control::Operation;
use http::Method;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// It happens at the end of one of so many histories.
const ONE_IN: u64 = 8;
/// Images of so many of its servers are asked for.
const SERVERS: usize = 4;

impl History<'_> {
    pub(super) async fn outlast(&mut self, seed: u64) -> Held {
        if seed % ONE_IN != ONE_IN / 2 {
            return Ok(());
        }
        self.refresh()?;
        let mut servers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, server) in self.mirror.all("server") {
            if let Some(host) = server["host"].as_str() {
                servers.entry(host.to_owned()).or_default().push(id.clone());
            }
        }
        let hosts = self.world.hosts();
        let busiest = hosts.iter().max_by_key(|slot| servers.get(slot.name.as_str()).map_or(0, Vec::len));
        let Some(slot) = busiest else { return Ok(()) };
        self.tally.operations.entry(OUTLASTED.to_owned()).or_default().0 += 1;
        slot.keep_away(true);
        self.world.strike(Kind::CrashAgent, &slot.name);
        slot.kill(Kind::CrashAgent);
        for id in servers.remove(slot.name.as_str()).unwrap_or_default().into_iter().take(SERVERS) {
            self.go(create_image(&id)).await?;
        }
        self.look()?;
        let waiting = self.mirror.all("job").count() as u64;
        self.tally.operations.entry(OUTLASTED.to_owned()).or_default().1 += waiting;
        let ms = (deadlines().seconds(Operation::Image) + 1) * 1000;
        self.world.say(format!("the clock, {ms} ms, while {waiting} jobs wait for {}", slot.name));
        self.world.clock.jump_ms(ms);
        let until = Instant::now() + LATE + LATE / 4;
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_secs(3)).await;
            self.look()?;
        }
        self.ask_the_late().await?;
        slot.keep_away(false);
        Ok(())
    }
}

fn create_image(server: &str) -> Ask {
    let look = Ask::look(ADMIN, format!("/compute/v2.1/servers/{server}/action"));
    let headers = [look.headers.clone(), vec![("content-type", "application/json".to_owned())]].concat();
    let body = json!({"createImage": {"name": "outlasted"}}).to_string().into_bytes();
    Ask { method: Method::POST, operation: "sim:create_image", headers, body, ..look }
}
