//! Files of images: control's own, and the host's by content.

use super::Sides;
use crate::fsck::files::{Overlay, Stored};
use crate::fsck::finding::{Finding, Repair};
use crate::fsck::shall::File;
use std::collections::BTreeMap;

pub fn compare(sides: &Sides<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let folder = sides.state.join("control/images");
    for image in &sides.shall.images {
        for file in &image.files {
            let stands = sides.files.images.iter().find(|stored| stored.name == file.file);
            let Some(what) = wrong(file, stands) else { continue };
            let mut others = sides.files.contents.iter().chain(&sides.files.cache);
            let repair = match others.find(|other| is(other, file)) {
                Some(good) => Repair::Copy { from: good.path.clone(), to: folder.join(&file.file) },
                None => Repair::hand("no copy of its bytes is on this machine: upload it again"),
            };
            found.push(Finding::new(sides.shall.name("image", &image.id), &image.id, what, repair));
        }
    }
    for stored in &sides.files.images {
        found.extend(stray(sides, stored));
    }
    found.extend(sides.files.contents.iter().filter(|stored| !stored.locked && stored.sha512 != stored.name).map(misnamed));
    found.extend(cache(sides));
    found
}

/// A name by content of other bytes. Images that have them are named for themselves.
fn misnamed(stored: &Stored) -> Finding {
    let object = format!("image file {}", stored.path.display());
    let repair = Repair::Quarantine { path: stored.path.clone() };
    Finding::new(object, "", "its content is not the one that it is named after", repair)
}

fn is(stored: &Stored, file: &File) -> bool {
    stored.size_bytes == file.size_bytes && stored.sha512 == file.sha512
}

fn wrong(file: &File, stands: Option<&Stored>) -> Option<String> {
    let Some(stored) = stands else { return Some(format!("its file {} is missing", file.file)) };
    if stored.size_bytes != file.size_bytes {
        return Some(format!("its file has {} bytes instead of {}", stored.size_bytes, file.size_bytes));
    }
    (stored.sha512 != file.sha512).then(|| "its file has another content than was uploaded".into())
}

/// A file that no image owns.
fn stray(sides: &Sides<'_>, stored: &Stored) -> Option<Finding> {
    let owned = |image: &&crate::fsck::shall::Image| image.files.iter().any(|file| file.file == stored.name);
    if stored.locked || sides.shall.images.iter().any(|image| owned(&image)) {
        return None;
    }
    // A transfer is `.upload-IMAGE-NONCE`; one whose process died is taken back by control itself.
    let upload = stored.name.strip_prefix(".upload-").and_then(|rest| Some((rest.get(..36)?, rest.get(37..)?)));
    let under_way = |(id, nonce): (&str, &str)| {
        sides.shall.images.iter().any(|image| image.id == id && image.transfer.as_deref() == Some(nonce))
    };
    if upload.is_some_and(under_way) {
        return None;
    }
    let name = stored.name.trim_start_matches(".upload-");
    let id = name.get(..36).unwrap_or(name).split('.').next().unwrap_or(name);
    // What another owner than an image's document keeps, such as the trash.
    if !sides.shall.images.iter().any(|image| image.id == id) && sides.shall.owns(id) {
        return None;
    }
    let repair = Repair::Quarantine { path: stored.path.clone() };
    Some(Finding::new(format!("image file {}", stored.path.display()), id, "it has no owner", repair))
}

/// The host's files: each is named by its content, and what guests stand on is there.
fn cache(sides: &Sides<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut needed: BTreeMap<String, (String, &agent_api::GuestSpec)> = BTreeMap::new();
    for guest in sides.shall.kept() {
        // A guest that was never started has fetched nothing yet.
        let Some(root) = &guest.root else { continue };
        // One whose disk stands alone needs none any more.
        let started = |folder: &&crate::fsck::files::Folder| {
            let alone = |overlay: &Overlay| overlay.stands_alone(root);
            let stands_on_it = |overlay: &Result<Overlay, String>| !overlay.as_ref().is_ok_and(alone);
            folder.id == guest.id.as_str() && folder.overlay.as_ref().is_some_and(stands_on_it)
        };
        if sides.files.folders.iter().any(|folder| started(&folder)) {
            needed.entry(file_name(root)).or_insert((root.sha512.clone(), guest));
        }
    }
    let good = |sha512: &str| sides.files.images.iter().find(|stored| stored.sha512 == sha512);
    for stored in &sides.files.cache {
        let (content, format) = stored.name.split_once('.').unwrap_or((&stored.name, ""));
        // One that is being fetched, or was when the agent died.
        if format == "partial" || stored.locked {
            continue;
        }
        let object = format!("image file {}", stored.path.display());
        let named = content.len() == 128 && matches!(format, "raw" | "qcow2");
        let repair = match good(content).filter(|_| named && needed.contains_key(&stored.name)) {
            Some(source) => Repair::Copy { from: source.path.clone(), to: stored.path.clone() },
            None => Repair::Quarantine { path: stored.path.clone() },
        };
        if !named {
            found.push(Finding::new(object, "", "it is named after no content", repair));
        } else if stored.sha512 != content {
            found.push(Finding::new(object, "", "its content is not the one that it is named after", repair));
        }
    }
    for (name, (sha512, guest)) in needed {
        if sides.files.cache.iter().any(|stored| stored.name == name) {
            continue;
        }
        let to = sides.state.join("hosts/images").join(&name);
        let repair = match good(&sha512) {
            Some(source) => Repair::Copy { from: source.path.clone(), to },
            None => Repair::hand("no copy of its bytes is on this machine: upload the image again"),
        };
        let object = sides.shall.name("server", &guest.id);
        found.push(Finding::new(object, guest.id.as_str(), "the image below its disk is not on this host", repair));
    }
    found
}

/// The name under which a host keeps the image of a guest.
pub fn file_name(root: &agent_api::RootDisk) -> String {
    format!("{}.{}", root.sha512, root.format.as_str())
}
