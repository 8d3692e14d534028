//! Why an image is as it is.

use crate::Service;
use crate::data::SENDER;
use crate::document::{Image, Member, Status, Visibility};
use base::Result;
use contract::{Asking, Explain, Explanation, Waiting};
use serde_json::json;
use store::Reader;

impl Explain for Service {
    fn kinds(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn explain(&self, reader: &mut Reader, asking: &Asking, _: &str, id: &str) -> Result<Option<Explanation>> {
        let Some(image) = reader.get::<Image>(id)?.map(|stored| stored.doc) else { return Ok(None) };
        if !may_see(reader, asking, &image)? {
            return Ok(None);
        }
        let running = image.transfer.is_some();
        let waits = image.awaits.is_some() || image.importing.is_some();
        let job = engine::Job::about(reader, id)?.pop().filter(|_| waits);
        let why = match (image.status, &image.contents) {
            (Status::Queued | Status::Saving, _) if image.awaits.is_some() && job.is_some() => {
                "It is made from the disk of a server or from a volume, which its host copies and sends.".to_owned()
            }
            (Status::Queued, _) => match &image.failed {
                Some(failed) => format!("It has no bytes, and the last transfer ended: {}", failed.message),
                None => "It has no bytes: upload them, or stage and import them.".to_owned(),
            },
            (Status::Saving, _) => "An upload of its bytes runs.".to_owned(),
            (Status::Importing, _) => "Its bytes are fetched from where they lie.".to_owned(),
            (Status::Uploading, _) if running => "Its bytes are being staged.".to_owned(),
            (Status::Uploading, _) => "Its bytes are staged and wait for an import.".to_owned(),
            (Status::Deactivated, _) => "An administrator has deactivated it.".to_owned(),
            (Status::Active, Some(contents)) => match &contents.quarantined {
                Some(why) => format!("It cannot be booted: {why}"),
                None => "Its bytes are there and were accepted.".to_owned(),
            },
            (Status::Active, None) => "It has no bytes: it names the snapshots of volumes that a server begins with.".to_owned(),
        };
        // An upload lives while its process holds its file; one that died, or is late, is put back to queued.
        let of_job = job.map(|job| {
            let fetched = image.importing.is_some();
            job.waiting(if fetched { "whoever has its bytes" } else { "the host to hand over the disk" })
        });
        let since = image.transfer_since.filter(|_| running);
        let waiting = of_job.or_else(|| {
            let failed = image.failed.clone();
            let (attempts, error) = failed.map_or((0, None), |failed| (failed.attempts, Some(failed.message)));
            since.map(|since| Waiting::of(&self.passing(since), SENDER, attempts, error))
        });
        let mut found = Explanation {
            kind: "image",
            id: id.to_owned(),
            state: image.status.as_str().to_owned(),
            why,
            waiting,
            ..Explanation::default()
        };
        found.details.insert("size_bytes".into(), json!(image.contents.as_ref().map(|contents| contents.size_bytes)));
        Ok(Some(found))
    }
}

/// As the image service itself shows images.
fn may_see(reader: &mut Reader, asking: &Asking, image: &Image) -> Result<bool> {
    let open = matches!(image.visibility, Visibility::Public | Visibility::Community);
    if open || asking.may_see(image.owner.as_deref().unwrap_or_default()) {
        return Ok(true);
    }
    let Some(project) = asking.project_id.as_deref().filter(|_| image.visibility == Visibility::Shared) else {
        return Ok(false);
    };
    Ok(reader.get::<Member>(&Member::key(&image.id, project))?.is_some())
}
