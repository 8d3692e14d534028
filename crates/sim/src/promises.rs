//! What clients were promised: an answered creation exists, an answered deletion does not come back.

use crate::check::Broken;
use crate::client::{Answer, Ask};
use crate::mirror::Mirror;
use http::Method;
use std::collections::{BTreeMap, BTreeSet};

/// Classes whose ids are ids of documents, and the documents' kinds.
const KINDS: &[(&str, &str)] = &[
    ("servers", "server"),
    ("ports", "port"),
    ("networks", "network"),
    ("subnets", "subnet"),
    ("routers", "router"),
    ("floatingips", "floatingip"),
    ("security-groups", "security_group"),
    ("security-group-rules", "security_group_rule"),
    ("images", "image"),
    ("flavors", "flavor"),
    ("users", "user"),
    ("projects", "project"),
    ("groups", "group"),
    ("roles", "role"),
    ("services", "service"),
    ("endpoints", "endpoint"),
];

struct Promise {
    kind: &'static str,
    /// What it was made from and answered as: names those that it hangs on.
    text: String,
    /// Calls under way, or never answered, that may have ended it.
    doubts: u32,
    gone: bool,
    step: u64,
}

#[derive(Default)]
pub struct Promises {
    made: BTreeMap<String, Promise>,
    /// How many calls have gone out.
    calls: u64,
    /// The ids that calls may have ended, by the number of the call: what was made meanwhile may hang on them.
    ended: Vec<(u64, BTreeSet<String>)>,
}

/// Things that a call may have ended, and which call it was.
pub struct Doubt {
    things: Vec<String>,
    call: u64,
}

impl Promises {
    /// A call goes out: what it may end is in doubt from now on.
    pub fn asked(&mut self, ask: &Ask) -> Doubt {
        let body = String::from_utf8_lossy(&ask.body);
        self.calls += 1;
        let call = self.calls;
        if ask.is_dry() {
            return Doubt { things: Vec::new(), call };
        }
        let ends = ask.method == Method::DELETE
            || body.contains("forceDelete")
            || ask.operation == "router:remove_router_interface"
            || ask.operation == "images:import";
        if !ends {
            return Doubt { things: Vec::new(), call };
        }
        let path = ask.path.split('?').next().unwrap_or_default();
        let mut causes: Vec<String> =
            path.split('/').chain(body.split('"')).filter(|word| word.len() >= 32).map(str::to_owned).collect();
        let mut doubted: Vec<String> = Vec::new();
        let mut ended: BTreeSet<String> = causes.iter().cloned().collect();
        while let Some(cause) = causes.pop() {
            for (id, promise) in &self.made {
                if !doubted.contains(id) && (*id == cause || promise.text.contains(&cause)) {
                    doubted.push(id.clone());
                    causes.push(id.clone());
                }
            }
        }
        if ask.operation == "router:remove_router_interface" {
            // It takes the port along, and names it only by its subnet.
            let ports = self.made.iter().filter(|(_, promise)| promise.kind == "port").map(|(id, _)| id.clone());
            doubted.extend(ports.collect::<Vec<_>>());
            doubted.sort();
            doubted.dedup();
        }
        for id in &doubted {
            if let Some(promise) = self.made.get_mut(id) {
                promise.doubts += 1;
            }
        }
        ended.extend(doubted.iter().cloned());
        self.ended.push((call, ended));
        Doubt { things: doubted, call }
    }

    /// The answer, or none: then the doubt stays for good.
    pub fn answered(&mut self, ask: &Ask, answer: Option<&Answer>, doubt: &Doubt, step: u64) {
        let Some(answer) = answer.filter(|_| !ask.is_dry()) else { return };
        let path = ask.path.split('?').next().unwrap_or_default();
        let mut parts = path.rsplit('/');
        let (last, class) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if (400..500).contains(&answer.status) {
            for id in &doubt.things {
                if let Some(promise) = self.made.get_mut(id) {
                    promise.doubts -= 1;
                }
            }
        }
        if ask.method == Method::DELETE
            && answer.is_ok()
            && ask.operation.ends_with(":delete")
            && let Some(promise) = self.made.get_mut(last)
            && KINDS.contains(&(class, promise.kind))
        {
            promise.gone = true;
        }
        if ask.method == Method::POST && answer.is_ok() {
            self.make(ask, answer, last, (doubt.call, step));
        }
    }

    fn make(&mut self, ask: &Ask, answer: &Answer, class: &str, (call, step): (u64, u64)) {
        let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == class) else { return };
        let object = match answer.json.as_object() {
            Some(object) if object.contains_key("id") => &answer.json,
            Some(object) if object.len() == 1 => object.values().next().unwrap_or(&answer.json),
            _ => return,
        };
        // A flavor's id is the user's own word.
        let Some(id) = object["id"].as_str().filter(|id| id.len() >= 32) else { return };
        let text = format!("{} {} {}", ask.path, String::from_utf8_lossy(&ask.body), answer.json);
        // What it hangs on may have been ended between its making and the answer.
        let meanwhile = self.ended.iter().filter(|(other, _)| *other > call);
        let doubts = meanwhile.filter(|(_, ended)| ended.iter().any(|cause| text.contains(cause))).count();
        self.made.insert(id.to_owned(), Promise { kind, text, doubts: doubts as u32, gone: false, step });
    }

    /// What was promised and cannot be in doubt is there.
    pub fn check(&self, mirror: &Mirror) -> Result<(), Broken> {
        for (id, promise) in self.made.iter().filter(|(_, promise)| !promise.gone && promise.doubts == 0) {
            if mirror.get(promise.kind, id).is_none() {
                let what = format!("{} {id}, made and answered in step {}, is not there", promise.kind, promise.step);
                return Err(Broken::new("an answered change is not forgotten", what));
            }
        }
        Ok(())
    }

    /// What was deleted has gone. Only where all is settled.
    pub fn check_gone(&self, mirror: &Mirror) -> Result<(), Broken> {
        for (id, promise) in self.made.iter().filter(|(_, promise)| promise.gone) {
            if mirror.get(promise.kind, id).is_some() {
                let what = format!("{} {id} was deleted and is there", promise.kind);
                return Err(Broken::new("an answered deletion stays", what));
            }
        }
        Ok(())
    }
}
