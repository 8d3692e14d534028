//! Nothing is on its way for longer than its deadline: servers, images, jobs, ports, routers, floating addresses.

use super::{History, brief};
use crate::calls::ADMIN;
use crate::check::{Broken, Held};
use crate::client::{Ask, send};
use base::Timestamp;
use control::{Deadlines, Operation};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// What is past its deadline is in ERROR within this, while control runs.
pub(crate) const LATE: Duration = Duration::from_secs(180);
/// The most objects of the network that one look asks about.
const ASKED: usize = 6;

const RULE: &str = "nothing is on its way for longer than its deadline";

/// Short enough that a clock that jumps ends transfers, too.
pub(crate) fn deadlines() -> Deadlines {
    let mut deadlines = Deadlines::default();
    let _ = deadlines.set("image", 1_800);
    deadlines
}

fn time(value: &Value, key: &str) -> Option<Timestamp> {
    value[key].as_i64().map(Timestamp)
}

impl History<'_> {
    /// What the store itself must end.
    pub(super) fn deadlines(&mut self) -> Held {
        let now = Instant::now();
        if self.world.process().is_none() {
            self.late.clear();
            return Ok(());
        }
        let (wall, limits) = (self.world.env.now(), deadlines());
        let mut late = std::mem::take(&mut self.late);
        let is_over =
            |at: Option<Timestamp>, operation| at.is_some_and(|at| limits.passing(operation, at).is_overdue(wall));
        let servers = self.mirror.all("server").filter(|(_, server)| {
            // The widest of a server's deadlines: which one holds is the server's own affair.
            server["overdue"].as_u64() != server["verb_generation"].as_u64()
                && is_over(time(server, "passing_since"), Operation::Build)
        });
        let images = self.mirror.all("image").filter(|(_, image)| {
            image["transfer"].is_string() && is_over(time(image, "transfer_since"), Operation::Image)
        });
        let jobs = self.mirror.all("job").filter(|(_, job)| time(job, "deadline").is_some_and(|at| at <= wall));
        let all = servers.map(|(id, _)| ("server", id)).chain(images.map(|(id, _)| ("image", id)));
        for (kind, id) in all.chain(jobs.map(|(id, _)| ("job", id))) {
            let since = late.remove(id).unwrap_or(now);
            if now - since > LATE {
                let what = format!("{kind} {id} has been past its deadline for {:?}", now - since);
                return Err(Broken::new(RULE, what));
            }
            self.late.insert(id.clone(), since);
        }
        Ok(())
    }

    /// What follows from documents and the time: it says until when, and afterwards it is in ERROR and says why.
    pub(super) async fn ask_the_late(&mut self) -> Held {
        for (kind, id) in self.unready() {
            let began = self.world.env.now();
            let ask = Ask::look(ADMIN, format!("/nubo/v1/explain/{kind}/{id}"));
            let Some(answer) = send(&self.world, &self.tokens, &self.template.actors, &ask).await else {
                return Ok(());
            };
            if answer.status != 200 {
                continue;
            }
            let told = &answer.json["explanation"];
            let broken = |why: &str| Err(Broken::new(RULE, format!("{kind} {id} {why}: {}", brief(&answer.body))));
            let passing = ["BUILD", "ALLOCATING"].contains(&told["state"].as_str().unwrap_or_default());
            let Some(deadline) = told["deadline"].as_str().and_then(Timestamp::parse) else {
                if passing {
                    return broken("is on its way without a deadline");
                }
                continue;
            };
            let (over, error) = (deadline.plus_s(1) < began, told["state"] == "ERROR");
            if over && !(error && told["details"]["fault"]["message"].is_string()) {
                return broken("is past its deadline and not in ERROR with a fault");
            }
        }
        Ok(())
    }

    /// What may wait for its host, as documents tell.
    fn unready(&self) -> Vec<(&'static str, String)> {
        let up = |kind: &str, id: &str| self.mirror.get(kind, id).is_some_and(|seen| seen["up"] == true);
        let ports = self.mirror.all("port").filter(|(id, port)| {
            port["attached"].is_object()
                && port["host"].as_str().is_some_and(|host| !host.is_empty())
                && !up("port_observed", id)
        });
        let routers = self.mirror.all("router").filter(|(id, _)| !up("router_observed", id));
        let floating = self.mirror.all("floatingip").filter(|(_, floating)| floating["port_id"].is_string());
        let ports = ports.map(|(id, _)| ("port", id.clone())).take(ASKED);
        let routers = routers.map(|(id, _)| ("router", id.clone())).take(ASKED);
        ports.chain(routers).chain(floating.map(|(id, _)| ("floatingip", id.clone())).take(ASKED)).collect()
    }
}
