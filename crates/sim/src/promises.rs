//! What clients were promised: an answered creation exists, an answered deletion does not come back.

use crate::check::Broken;
use crate::client::{Answer, Ask};
use crate::mirror::Mirror;
use http::Method;
use std::collections::BTreeMap;

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
pub struct Promises(BTreeMap<String, Promise>);

/// Things that a call may have ended.
pub struct Doubt(Vec<String>);

impl Promises {
    /// A call goes out: what it may end is in doubt from now on.
    pub fn asked(&mut self, ask: &Ask) -> Doubt {
        let body = String::from_utf8_lossy(&ask.body);
        if ask.is_dry() {
            return Doubt(Vec::new());
        }
        let ends = ask.method == Method::DELETE
            || body.contains("forceDelete")
            || ask.operation == "router:remove_router_interface"
            || ask.operation == "images:import";
        if !ends {
            return Doubt(Vec::new());
        }
        let path = ask.path.split('?').next().unwrap_or_default();
        let mut causes: Vec<String> =
            path.split('/').chain(body.split('"')).filter(|word| word.len() >= 32).map(str::to_owned).collect();
        let mut doubted: Vec<String> = Vec::new();
        while let Some(cause) = causes.pop() {
            for (id, promise) in &self.0 {
                if !doubted.contains(id) && (*id == cause || promise.text.contains(&cause)) {
                    doubted.push(id.clone());
                    causes.push(id.clone());
                }
            }
        }
        if ask.operation == "router:remove_router_interface" {
            // It takes the port along, and names it only by its subnet.
            let ports = self.0.iter().filter(|(_, promise)| promise.kind == "port").map(|(id, _)| id.clone());
            doubted.extend(ports.collect::<Vec<_>>());
            doubted.sort();
            doubted.dedup();
        }
        for id in &doubted {
            if let Some(promise) = self.0.get_mut(id) {
                promise.doubts += 1;
            }
        }
        Doubt(doubted)
    }

    /// The answer, or none: then the doubt stays for good.
    pub fn answered(&mut self, ask: &Ask, answer: Option<&Answer>, doubt: &Doubt, step: u64) {
        let Some(answer) = answer.filter(|_| !ask.is_dry()) else { return };
        let path = ask.path.split('?').next().unwrap_or_default();
        let mut parts = path.rsplit('/');
        let (last, class) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if (400..500).contains(&answer.status) {
            for id in &doubt.0 {
                if let Some(promise) = self.0.get_mut(id) {
                    promise.doubts -= 1;
                }
            }
        }
        if ask.method == Method::DELETE
            && answer.is_ok()
            && ask.operation.ends_with(":delete")
            && let Some(promise) = self.0.get_mut(last)
            && KINDS.contains(&(class, promise.kind))
        {
            promise.gone = true;
        }
        if ask.method == Method::POST && answer.is_ok() {
            self.made(ask, answer, last, step);
        }
    }

    fn made(&mut self, ask: &Ask, answer: &Answer, class: &str, step: u64) {
        let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == class) else { return };
        let object = match answer.json.as_object() {
            Some(object) if object.contains_key("id") => &answer.json,
            Some(object) if object.len() == 1 => object.values().next().unwrap_or(&answer.json),
            _ => return,
        };
        // A flavor's id is the user's own word.
        let Some(id) = object["id"].as_str().filter(|id| id.len() >= 32) else { return };
        let text = format!("{} {} {}", ask.path, String::from_utf8_lossy(&ask.body), answer.json);
        self.0.insert(id.to_owned(), Promise { kind, text, doubts: 0, gone: false, step });
    }

    /// What was promised and cannot be in doubt is there.
    pub fn check(&self, mirror: &Mirror) -> Result<(), Broken> {
        for (id, promise) in self.0.iter().filter(|(_, promise)| !promise.gone && promise.doubts == 0) {
            if mirror.get(promise.kind, id).is_none() {
                let what = format!("{} {id}, made and answered in step {}, is not there", promise.kind, promise.step);
                return Err(Broken::new("an answered change is not forgotten", what));
            }
        }
        Ok(())
    }

    /// What was deleted has gone. Only where all is settled.
    pub fn check_gone(&self, mirror: &Mirror) -> Result<(), Broken> {
        for (id, promise) in self.0.iter().filter(|(_, promise)| promise.gone) {
            if mirror.get(promise.kind, id).is_some() {
                let what = format!("{} {id} was deleted and is there", promise.kind);
                return Err(Broken::new("an answered deletion stays", what));
            }
        }
        Ok(())
    }
}
