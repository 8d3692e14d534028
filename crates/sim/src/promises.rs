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

const UNDO: &str = "nubo:undo";

struct Promise {
    kind: &'static str,
    /// What it was made from and answered as: names those that it hangs on.
    text: String,
    /// Calls under way, or never answered, that may have ended it.
    doubts: u32,
    gone: bool,
    /// The request that deleted it.
    gone_by: String,
    /// Undos of that request, under way or done, that may have brought it back.
    back: u32,
    step: u64,
}

/// A request that was done, as far as an undo of it matters.
struct Past {
    deletes: bool,
    /// The ids in it and in its answer.
    ids: Vec<String>,
}

#[derive(Default)]
pub struct Promises {
    made: BTreeMap<String, Promise>,
    /// By request id.
    past: BTreeMap<String, Past>,
    /// How many calls have gone out.
    calls: u64,
    /// The ids that calls may have ended, by the number of the call: what was made meanwhile may hang on them.
    ended: Vec<(u64, BTreeSet<String>)>,
}

/// Things that a call may have ended, and which call it was.
pub struct Doubt {
    things: Vec<String>,
    /// What may come back.
    back: Vec<String>,
    call: u64,
}

fn ids(text: &str) -> impl Iterator<Item = String> {
    text.split(['/', '"', '?']).filter(|word| word.len() >= 32 && word.len() <= 36).map(str::to_owned)
}

impl Promises {
    /// A call goes out: what it may end is in doubt from now on.
    pub fn asked(&mut self, ask: &Ask) -> Doubt {
        let body = String::from_utf8_lossy(&ask.body);
        self.calls += 1;
        let call = self.calls;
        if ask.is_dry() {
            return Doubt { things: Vec::new(), back: Vec::new(), call };
        }
        let path = ask.path.split('?').next().unwrap_or_default();
        let undone = (ask.operation == UNDO).then(|| path.rsplit('/').next().unwrap_or_default());
        let past = undone.and_then(|request| self.past.get(request));
        if past.is_some_and(|past| past.deletes) {
            let gone = self.made.iter_mut().filter(|(_, promise)| Some(promise.gone_by.as_str()) == undone);
            let back = gone.map(|(id, promise)| (promise.back += 1, id.clone()).1).collect();
            return Doubt { things: Vec::new(), back, call };
        }
        let ends = past.is_some()
            || ask.method == Method::DELETE
            || body.contains("forceDelete")
            || ask.operation == "router:remove_router_interface"
            || ask.operation == "images:import";
        if !ends {
            return Doubt { things: Vec::new(), back: Vec::new(), call };
        }
        let mut causes: Vec<String> = match past {
            Some(past) => past.ids.clone(),
            None => path.split('/').chain(body.split('"')).filter(|word| word.len() >= 32).map(str::to_owned).collect(),
        };
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
        Doubt { things: doubted, back: Vec::new(), call }
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
        if (400..500).contains(&answer.status) {
            for id in &doubt.back {
                self.made.entry(id.clone()).and_modify(|promise| promise.back -= 1);
            }
        }
        if answer.is_ok() && ask.method != Method::GET {
            let text = format!("{path} {} {}", String::from_utf8_lossy(&ask.body), answer.json);
            let past = Past { deletes: ask.method == Method::DELETE, ids: ids(&text).collect() };
            self.past.insert(answer.request_id.clone(), past);
        }
        if ask.operation == UNDO && answer.is_ok() {
            self.brought_back(answer, last);
        }
        if ask.method == Method::DELETE
            && answer.is_ok()
            && ask.operation.ends_with(":delete")
            && let Some(promise) = self.made.get_mut(last)
            && KINDS.contains(&(class, promise.kind))
        {
            promise.gone = true;
            promise.gone_by = answer.request_id.clone();
            promise.back = 0;
        }
        if ask.method == Method::POST && answer.is_ok() {
            self.make(ask, answer, last, (doubt.call, step));
        }
    }

    /// What an undo says that it brought back is promised anew.
    fn brought_back(&mut self, answer: &Answer, request: &str) {
        for change in answer.json["undo"]["changes"].as_array().into_iter().flatten() {
            let promise = change["id"].as_str().and_then(|id| self.made.get_mut(id));
            let Some(promise) = promise.filter(|promise| change["kind"] == promise.kind) else { continue };
            if change["what"] == "brought back" && promise.gone && promise.gone_by == request {
                promise.gone = false;
                // That of the deletion, which is no more.
                promise.doubts = promise.doubts.saturating_sub(1);
            }
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
        let promise = Promise { kind, text, doubts: doubts as u32, gone: false, gone_by: String::new(), back: 0, step };
        self.made.insert(id.to_owned(), promise);
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
        for (id, promise) in self.made.iter().filter(|(_, promise)| promise.gone && promise.back == 0) {
            if mirror.get(promise.kind, id).is_some() {
                let what = format!("{} {id} was deleted and is there", promise.kind);
                return Err(Broken::new("an answered deletion stays", what));
            }
        }
        Ok(())
    }
}

/// The kind of the documents of a class.
pub fn kind_of(class: &str) -> Option<&'static str> {
    KINDS.iter().find(|(known, _)| *known == class).map(|(_, kind)| *kind)
}

pub fn class_of(kind: &str) -> Option<&'static str> {
    KINDS.iter().find(|(_, known)| *known == kind).map(|(class, _)| *class)
}
