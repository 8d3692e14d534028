//! What an undo would do, and what it cannot.

use super::{Held, Step, UndoServices, Undone};
use crate::buffer::seq;
use crate::document::{Kind, Made};
use crate::sql::{self, given};
use crate::trash::{Charged, Trash, TrashedDocument};
use crate::{Error, Query, Reader, Rev};
use base::{RequestId, Timestamp};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a request of the past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PastRequest {
    pub request_id: RequestId,
    pub actor: String,
    /// The operation, such as `servers:delete`.
    pub what: String,
    pub at: Timestamp,
    /// Whose documents it touched, but for shares of them.
    pub projects: Vec<String>,
}

/// Something that an undo does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reversal {
    pub kind: String,
    pub id: String,
    pub project_id: String,
    /// `brought back`, `changed` or `deleted`.
    pub what: &'static str,
    /// The fields that go back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// Something that an undo cannot do, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Collision {
    pub kind: String,
    pub id: String,
    pub project_id: String,
    pub reason: String,
    /// Kind and id of what is in the way, unless it belongs to another project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with: Option<(String, String)>,
}

/// What an undo would do, made by [`Reader::plan_undo`].
#[derive(Clone, Debug)]
pub struct UndoPlan {
    pub request: PastRequest,
    pub steps: Vec<Reversal>,
    pub collisions: Vec<Collision>,
    /// What the ledger would refuse; nothing can be undone before that is mended.
    pub short: Vec<Collision>,
    /// Kind and id of what is never kept: tokens, credentials, what is observed anew.
    pub left: Vec<(String, String)>,
    pub charges: Vec<Charged>,
    pub(super) rest: Vec<Charged>,
    pub(super) acts: Vec<Step>,
}

impl UndoPlan {
    pub(super) fn collided(&self, kind: &str, id: &str) -> bool {
        self.collisions.iter().any(|it| it.kind == kind && it.id == id)
    }

    /// True when something still rests in the trash after the undo.
    pub(super) fn leaves_trash(&self) -> bool {
        !self.rest.is_empty() || !self.collisions.is_empty()
    }

    /// True where services take back what the request made, and nothing else is done.
    pub(super) fn removes(&self) -> bool {
        self.acts.iter().any(|act| matches!(act, Step::Remove(_)))
    }

    /// Deletions first, so that keys are free; what comes back in the order in which it was made.
    pub(super) fn ordered(&self) -> impl Iterator<Item = (usize, &Step)> {
        let mut order: Vec<(usize, &Step)> = self.acts.iter().enumerate().collect();
        order.sort_by_key(|(_, step)| match step {
            Step::Delete { .. } => (0, 0),
            Step::Remove(turn) => (0, i64::from(*turn)),
            Step::Change { .. } => (1, 0),
            Step::BringBack(trashed) => (2, trashed.created.0),
        });
        order.into_iter()
    }
}

/// A document that the request touched.
struct Touched {
    kind: String,
    id: String,
    project_id: String,
    first: i64,
    last: i64,
    after: Option<String>,
}

/// A step that may still collide.
struct Draft {
    shown: Reversal,
    act: Step,
    kind: Kind,
    /// The document as it will be.
    result: Option<String>,
    collision: Option<Held>,
}

impl Reader {
    /// Who asked for a request, and what it touched; none: unknown, or its history is no longer kept.
    pub fn past_request(&mut self, request_id: &str) -> Result<Option<PastRequest>, Error> {
        let revisions = self.revisions_of(request_id)?;
        Ok(self.touched_by(request_id, &revisions)?.map(|(request, _)| request))
    }

    fn touched_by(
        &mut self,
        request_id: &str,
        revisions: &[(i64, Vec<Charged>)],
    ) -> Result<Option<(PastRequest, Vec<Touched>)>, Error> {
        let mut request: Option<PastRequest> = None;
        let mut touched: Vec<Touched> = Vec::new();
        let mut places: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (rev, _) in revisions {
            let (from, to) = (seq(Rev(*rev as u64), 0), seq(Rev(*rev as u64 + 1), 0));
            for mut row in self.query(&sql::PAST_REV, &given![from, to])? {
                let (kind, id, project_id) = (row.text(1)?, row.text(2)?, row.text(3)?);
                let (at, after) = (Timestamp(row.int(4)?), row.maybe_text(5));
                let (actor, what) = (row.text(6)?, row.text(7)?);
                let request = request.get_or_insert_with(|| PastRequest {
                    request_id: request_id.into(),
                    actor,
                    what,
                    at,
                    projects: Vec::new(),
                });
                let share = self.kind_named(&kind).is_some_and(|kind| kind.reversing.share);
                if !project_id.is_empty() && !share && !request.projects.contains(&project_id) {
                    request.projects.push(project_id.clone());
                }
                match places.get(&(kind.clone(), id.clone())) {
                    Some(n) => {
                        let known = &mut touched[*n];
                        (known.last, known.after, known.project_id) = (*rev, after, project_id);
                    }
                    None => {
                        places.insert((kind.clone(), id.clone()), touched.len());
                        touched.push(Touched { kind, id, project_id, first: *rev, last: *rev, after });
                    }
                }
            }
        }
        Ok(request.map(|request| (request, touched)))
    }

    /// What an undo of a request would do now. [`Error::Conflict`] when it has been undone already.
    pub fn plan_undo(
        &mut self,
        request_id: &str,
        services: &mut dyn UndoServices,
    ) -> Result<Option<UndoPlan>, base::Fault> {
        let revisions = self.revisions_of(request_id)?;
        let Some((request, touched)) = self.touched_by(request_id, &revisions)? else { return Ok(None) };
        let earlier = self.get::<Undone>(request_id)?.map(|stored| stored.doc);
        if let Some(done) = earlier.as_ref().filter(|done| done.whole) {
            return Err(Error::Conflict(format!("Request {request_id} was undone already, by {}", done.by)).into());
        }
        let mut trash = BTreeMap::new();
        for part in self.list::<Trash>(Query::index("request", request_id))? {
            for document in part.doc.documents {
                trash.insert((document.kind.clone(), document.id.clone()), document);
            }
        }
        let (mut drafts, mut left) = (Vec::new(), Vec::new());
        let roots = self.roots(&touched)?;
        for document in touched.iter().filter(|it| !roots.is_empty() && roots.contains(&(&it.kind, &it.id))) {
            drafts.extend(self.removal(document, &touched, services)?);
        }
        let by_services = !roots.is_empty();
        let mut given_back = Vec::new();
        let all: BTreeSet<(String, String)> = touched.iter().map(|it| (it.kind.clone(), it.id.clone())).collect();
        for document in touched.into_iter().filter(|_| !by_services) {
            let trashed = trash.remove(&(document.kind.clone(), document.id.clone()));
            if earlier.is_some() && trashed.is_none() {
                // That part was undone before.
                continue;
            }
            given_back.extend(self.given_back(&document)?);
            match self.draft(document, trashed)? {
                Ok(Some(mut draft)) => {
                    if draft.collision.is_none() && matches!(draft.act, Step::Delete { .. }) {
                        let same = |kind: &str, id: &str| all.contains(&(kind.to_owned(), id.to_owned()));
                        draft.collision = services.held(self, &draft.shown.kind, &draft.shown.id, &same)?;
                    }
                    drafts.push(draft);
                }
                Ok(None) => {}
                Err(never) => left.push(never),
            }
        }
        self.collide(&mut drafts)?;
        let mut plan = UndoPlan {
            request,
            steps: Vec::new(),
            collisions: Vec::new(),
            short: Vec::new(),
            left,
            charges: Vec::new(),
            rest: Vec::new(),
            acts: Vec::new(),
        };
        let charged = match earlier {
            // Services give back what they take.
            _ if by_services => Vec::new(),
            Some(done) => done.rest,
            None => {
                let charged = revisions.into_iter().flat_map(|(_, charged)| charged);
                back(charged).into_iter().chain(given_back).collect()
            }
        };
        self.settle(&mut plan, drafts, charged, services)?;
        Ok(Some(plan))
    }

    /// What the request made and only services can take back; with it goes whatever else the request made.
    fn roots<'a>(&mut self, touched: &'a [Touched]) -> Result<BTreeSet<(&'a String, &'a String)>, Error> {
        let mut roots = BTreeSet::new();
        for it in touched.iter().filter(|it| it.after.is_some()) {
            let removed = self.kind_named(&it.kind).is_some_and(|kind| kind.reversing.made != Made::Deleted);
            if removed && self.before(it)?.is_none() {
                roots.insert((&it.kind, &it.id));
            }
        }
        Ok(roots)
    }

    /// The removal of one of them, unless it has gone already.
    fn removal(
        &mut self,
        document: &Touched,
        touched: &[Touched],
        services: &mut dyn UndoServices,
    ) -> Result<Option<Draft>, base::Fault> {
        let Touched { kind: name, id, project_id, .. } = document;
        let Some(kind) = self.kind_named(name) else { return Ok(None) };
        let Made::Removed(turn) = kind.reversing.made else { return Ok(None) };
        if self.row(kind.name, id)?.is_none() {
            return Ok(None);
        }
        let same = |kind: &str, id: &str| touched.iter().any(|it| it.kind == kind && it.id == id);
        let collision = services.held(self, name, id, &same)?;
        let shown = Reversal {
            kind: name.clone(),
            id: id.clone(),
            project_id: project_id.clone(),
            what: "deleted",
            fields: vec![],
        };
        Ok(Some(Draft { shown, act: Step::Remove(turn), kind, result: None, collision }))
    }

    /// What a document took that the request made and that has gone since: whoever removed it has given that back.
    fn given_back(&mut self, document: &Touched) -> Result<Vec<Charged>, Error> {
        let Some(made) = &document.after else { return Ok(Vec::new()) };
        let Some(kind) = self.kind_named(&document.kind) else { return Ok(Vec::new()) };
        if self.row(kind.name, &document.id)?.is_some() || self.before(document)?.is_some() {
            return Ok(Vec::new());
        }
        let costs = (kind.reversing.costs)(made)?.0;
        Ok(costs.into_iter().map(|(scope, resource, delta)| Charged { scope, resource, delta }).collect())
    }

    /// A document as it was before the request.
    fn before(&mut self, document: &Touched) -> Result<Option<String>, Error> {
        let Touched { kind, id, first, .. } = document;
        let before = self.query(&sql::PAST_GET, &given![kind, id, seq(Rev(*first as u64), 0)])?.pop();
        Ok(before.and_then(|mut row| row.maybe_text(5)))
    }

    /// The step back for one document; none where nothing is to be done, Err where it is never kept.
    fn draft(
        &mut self,
        document: Touched,
        trashed: Option<TrashedDocument>,
    ) -> Result<Result<Option<Draft>, (String, String)>, Error> {
        let before = self.before(&document)?;
        let Touched { kind: name, id, project_id, last, after, .. } = document;
        let Some(kind) = self.kind_named(&name) else {
            return Err(Error::Corrupt(format!("no kind {name} is registered")));
        };
        if !kind.reversing.undo {
            return Ok(Ok(None));
        }
        let current = self.row(kind.name, &id)?;
        let shown = |what| Reversal {
            kind: name.clone(),
            id: id.clone(),
            project_id: project_id.clone(),
            what,
            fields: vec![],
        };
        let draft = |what, act, result, why: Option<String>| {
            Ok(Ok(Some(Draft { shown: shown(what), act, kind, result, collision: why.map(|why| (why, None)) })))
        };
        match (before, after) {
            (None, None) => Ok(Ok(None)),
            (None, Some(_)) => {
                let Some(current) = current else { return Ok(Ok(None)) };
                let why = (current.rev != last)
                    .then(|| "it has changed since it was made: delete it by its own call".to_owned());
                draft("deleted", Step::Delete { before: current.body }, None, why)
            }
            (Some(_), None) if !kind.reversing.trash => Ok(Err((name, id))),
            (Some(_), None) => {
                let Some(mut trashed) = trashed else {
                    let act = Step::Delete { before: String::new() };
                    let why = if current.is_some() { "it exists again" } else { "it no longer rests in the trash" };
                    return draft("brought back", act, None, Some(why.to_owned()));
                };
                let why = current.is_some().then(|| "it exists again".to_owned());
                trashed.body = (kind.reversing.revive)(&trashed.body, self.clock())?;
                let result = Some(trashed.body.clone());
                draft("brought back", Step::BringBack(trashed), result, why)
            }
            (Some(before), Some(after)) => {
                let Some(current) = current else {
                    let act = Step::Delete { before: String::new() };
                    return draft("changed", act, None, Some("it has been deleted since".to_owned()));
                };
                let merged = (kind.reversing.merge)(&current.body, &before, &after, self.clock())?;
                if merged.fields.is_empty() && merged.conflicts.is_empty() {
                    return Ok(Ok(None));
                }
                let conflicts = merged.conflicts.join(", ");
                let why = (!conflicts.is_empty()).then(|| format!("changed since: {conflicts}"));
                let act = Step::Change { before: current.body, after: merged.text.clone() };
                let shown = Reversal { fields: merged.fields, ..shown("changed") };
                let collision = why.map(|why| (why, None));
                Ok(Ok(Some(Draft { shown, act, kind, result: Some(merged.text), collision })))
            }
        }
    }

    /// Finds what is in the way: taken keys, and what is needed and gone. What falls takes along what needs it.
    fn collide(&mut self, drafts: &mut [Draft]) -> Result<(), Error> {
        let deleted: BTreeSet<(String, String)> = drafts
            .iter()
            .filter(|it| it.collision.is_none() && matches!(it.act, Step::Delete { .. }))
            .map(|it| (it.shown.kind.clone(), it.shown.id.clone()))
            .collect();
        for draft in drafts.iter_mut().filter(|draft| draft.collision.is_none()) {
            let Some(text) = draft.result.clone() else { continue };
            for (name, value) in (draft.kind.keys)(&text)?.uniques {
                let Some(owner) = self.owner(draft.kind.name, name, &value)? else { continue };
                if owner == draft.shown.id || deleted.contains(&(draft.shown.kind.clone(), owner.clone())) {
                    continue;
                }
                let theirs = self.row(draft.kind.name, &owner)?.map_or(String::new(), |row| row.project_id);
                let foreign = !theirs.is_empty() && theirs != draft.shown.project_id;
                let shown = value.rsplit('/').next().unwrap_or("");
                draft.collision = Some(match foreign {
                    true => (format!("its {name} {shown} is taken"), None),
                    false => {
                        let reason = format!("its {name} {shown} is taken by {} {owner}", draft.kind.name);
                        (reason, Some((draft.kind.name.to_owned(), owner)))
                    }
                });
            }
        }
        loop {
            let standing = |it: &&Draft| it.collision.is_none() && it.result.is_some();
            let coming: BTreeSet<(String, String)> =
                drafts.iter().filter(standing).map(|it| (it.shown.kind.clone(), it.shown.id.clone())).collect();
            let mut fell = false;
            for draft in drafts.iter_mut().filter(|draft| draft.collision.is_none()) {
                let Some(text) = draft.result.clone() else { continue };
                for (kind, id) in (draft.kind.reversing.needs)(&text)?.0 {
                    let key = (kind.to_owned(), id.clone());
                    let there = coming.contains(&key) || (!deleted.contains(&key) && self.row(kind, &id)?.is_some());
                    if !there {
                        draft.collision = Some((format!("its {} {id} is gone", kind.replace('_', " ")), Some(key)));
                        fell = true;
                        break;
                    }
                }
            }
            if !fell {
                return Ok(());
            }
        }
    }

    fn owner(&mut self, kind: &'static str, name: &'static str, value: &str) -> Result<Option<String>, Error> {
        if let Some(owner) = self.buffer.owners.get(&(kind, name, value.to_owned())) {
            return Ok(owner.clone());
        }
        self.query(&sql::OWNER, &given![kind, name, value])?.pop().map(|mut row| row.text(0)).transpose()
    }

    /// Sorts the drafts into steps and collisions, and finds what the ledger says.
    fn settle(
        &mut self,
        plan: &mut UndoPlan,
        drafts: Vec<Draft>,
        charged: Vec<Charged>,
        services: &mut dyn UndoServices,
    ) -> Result<(), base::Fault> {
        let mut charges: BTreeMap<(String, String), i64> = BTreeMap::new();
        for Charged { scope, resource, delta } in charged {
            *charges.entry((scope, resource)).or_default() += delta;
        }
        let mut rest: BTreeMap<(String, String), i64> = BTreeMap::new();
        for draft in drafts {
            let Draft { shown, act, kind, collision, .. } = draft;
            let Some((reason, with)) = collision else {
                plan.steps.push(shown);
                plan.acts.push(act);
                continue;
            };
            let (text, sign) = match &act {
                Step::BringBack(trashed) => (trashed.body.as_str(), 1),
                Step::Delete { before } => (before.as_str(), -1),
                Step::Change { .. } | Step::Remove(_) => ("", 0),
            };
            if !text.is_empty() {
                for (scope, resource, used) in (kind.reversing.costs)(text)?.0 {
                    *charges.entry((scope.clone(), resource.clone())).or_default() -= sign * used;
                    if sign > 0 {
                        *rest.entry((scope, resource)).or_default() += used;
                    }
                }
            }
            let Reversal { kind, id, project_id, .. } = shown;
            plan.collisions.push(Collision { kind, id, project_id, reason, with });
        }
        let listed = |map: BTreeMap<(String, String), i64>| -> Vec<Charged> {
            let nonzero = map.into_iter().filter(|(_, delta)| *delta != 0);
            nonzero.map(|((scope, resource), delta)| Charged { scope, resource, delta }).collect()
        };
        (plan.charges, plan.rest) = (listed(charges), listed(rest));
        for Charged { scope, resource, delta } in plan.charges.clone() {
            let usage = self.usage(&scope, &resource)?;
            let default =
                if usage.limit.is_none() && delta > 0 { services.limit(self, &scope, &resource)? } else { None };
            if let Some(limit) = usage.refused(delta, default) {
                let used = usage.used;
                plan.short.push(Collision {
                    kind: "quota".into(),
                    id: resource.clone(),
                    project_id: scope,
                    reason: format!("{delta} {resource} are asked for, and {used} of {limit} are used"),
                    with: None,
                });
            }
        }
        Ok(())
    }
}

/// The opposite of what was charged.
fn back(charged: impl Iterator<Item = Charged>) -> Vec<Charged> {
    charged.map(|it| Charged { delta: -it.delta, ..it }).collect()
}
