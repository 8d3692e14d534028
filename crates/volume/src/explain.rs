//! Why a volume or a snapshot is as it is.

use crate::Volumes;
use crate::document::{Leaving, Snapshot, Volume, VolumeObserved};
use crate::sight::{self, Sight};
use base::{Result, Timestamp, VolumeId};
use contract::{Asking, Explain, Explanation, Waiting};
use serde_json::json;
use store::Reader;

impl Explain for Volumes {
    fn kinds(&self) -> &'static [&'static str] {
        &["volume", "volume_snapshot"]
    }

    fn explain(&self, reader: &mut Reader, asking: &Asking, kind: &str, id: &str) -> Result<Option<Explanation>> {
        match kind {
            "volume" => self.volume(reader, asking, id),
            _ => self.snapshot(reader, asking, id),
        }
    }
}

impl Volumes {
    fn volume(&self, reader: &mut Reader, asking: &Asking, id: &str) -> Result<Option<Explanation>> {
        let Some(volume) = reader.get::<Volume>(id)?.filter(|it| asking.may_see(&it.project_id)) else { return Ok(None) };
        let sight = Sight::of(reader, &volume)?;
        let observed = sight.observed.get(&volume.id);
        let state = sight.status(&volume);
        let said = observed.and_then(|seen| seen.fault.as_ref());
        let moving = self.moving(reader, &sight, &volume.id)?;
        let why = match (&volume.unplaceable, state.as_str()) {
            (Some(why), _) => why.message.clone(),
            (_, "creating") if volume.host.is_none() => "No host that could keep it answers.".to_owned(),
            (_, "creating") => "Its host makes it.".to_owned(),
            (_, "extending") => "Its host makes it larger.".to_owned(),
            (_, "in-use") => "A server uses it.".to_owned(),
            (_, "attaching") if moving.is_some() => "The host of its server plugs it in.".to_owned(),
            (_, "detaching") if moving.is_some() => "The guest that had it has not let go of it yet.".to_owned(),
            (_, "error_attaching" | "error_detaching") => {
                "The host of its server has not done it in time. It goes on trying.".to_owned()
            }
            (_, "uploading") => "An image is made of it.".to_owned(),
            (_, "available") => "It is on its host, and nobody uses it.".to_owned(),
            (_, "error" | "error_extending") => {
                said.map_or_else(|| "An administrator or its deadline has put it there.".to_owned(), |why| why.message.clone())
            }
            (_, other) => format!("It is {other}."),
        };
        let waiting = volume.passing_since.filter(|_| volume.unplaceable.is_none()).map(|since| Waiting {
            waiting_on: if volume.host.is_some() { "its host" } else { "a host" }.to_owned(),
            since,
            deadline: Some(since.plus_s(self.options.deadline_s)),
            attempts: observed.map_or(0, |seen| seen.attempts),
            last_error: said.map(|why| match asking.admin {
                true => format!("{} ({})", why.message, why.details),
                false => why.message.clone(),
            }),
        });
        let flattening = volume.flatten && observed.is_some_and(|seen| seen.shares);
        let uploads = crate::volumes::upload::waiting(reader, &volume, asking.admin)?;
        let waiting = waiting.or(uploads).or(moving);
        let mut found = Explanation { kind: "volume", id: id.to_owned(), state, why, waiting, ..Explanation::default() };
        found.details.insert("used_bytes".into(), json!(observed.map(|seen| seen.used_bytes)));
        found.details.insert("depends_on".into(), json!(observed.map(|seen| &seen.depends_on)));
        found.details.insert("shares".into(), json!(observed.map(|seen| seen.shares)));
        found.details.insert("flattening".into(), json!(flattening));
        if asking.admin {
            found.details.insert("host".into(), json!(volume.host));
            found.details.insert("hosts".into(), json!(volume.unplaceable.as_ref().map(|why| &why.details)));
        }
        Ok(Some(found))
    }

    /// What it waits for between a server and itself.
    fn moving(&self, reader: &mut Reader, sight: &Sight, id: &VolumeId) -> Result<Option<Waiting>> {
        let waiting = |since: Timestamp, last_error: Option<String>| Waiting {
            waiting_on: "the host of its server".to_owned(),
            since,
            deadline: Some(since.plus_s(self.options.hold_s)),
            attempts: 0,
            last_error,
        };
        if let Some(attachment) = sight.attachments(id).iter().find(|it| it.is_passing() || it.overdue) {
            return Ok(Some(waiting(attachment.since, attachment.why.clone())));
        }
        Ok(reader.get::<Leaving>(id)?.map(|leaving| waiting(leaving.since, None)))
    }

    fn snapshot(&self, reader: &mut Reader, asking: &Asking, id: &str) -> Result<Option<Explanation>> {
        let Some(snapshot) = reader.get::<Snapshot>(id)?.filter(|it| asking.may_see(&it.project_id)) else {
            return Ok(None);
        };
        let observed = reader.get::<VolumeObserved>(&snapshot.volume)?;
        let state = sight::snapshot(&snapshot, observed.as_ref().map(|seen| &seen.doc)).to_owned();
        let why = match state.as_str() {
            "available" => "The host of its volume has it.",
            "creating" => "The host of its volume makes it.",
            _ => "The host of its volume could not make it, or an administrator has put it there.",
        };
        let waiting = snapshot.passing_since.map(|since| Waiting {
            waiting_on: "the host of its volume".to_owned(),
            since,
            deadline: Some(since.plus_s(self.options.deadline_s)),
            attempts: observed.as_ref().map_or(0, |seen| seen.attempts),
            last_error: observed.as_ref().and_then(|seen| seen.fault.as_ref()).map(|why| why.message.clone()),
        });
        let (id, why) = (id.to_owned(), why.to_owned());
        Ok(Some(Explanation { kind: "volume_snapshot", id, state, why, waiting, ..Explanation::default() }))
    }
}
