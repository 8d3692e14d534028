//! Turning an imported disk into the format that the operator wants, before it becomes the image's own.
//!
//! The bytes have been inspected and accepted; a limited `qemu-img` reads them through a descriptor. The result is
//! hashed anew and takes the place of the transfer's file, with a lock of its own.

use super::Files;
use super::transfer::{hex, judge};
use crate::document::{Contents, Image, Staged};
use crate::{Service, quota};
use agent_api::DiskFormat;
use base::{Fault, ImageId, Result};
use format::Decision;
use md5::{Digest, Md5};
use model::deadline::Operation;
use sha2::Sha512;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use store::Reader;
use workshop::Conversion;

/// Formats of disks that are converted.
const DISKS: [&str; 6] = ["raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx"];

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// What an import makes of an image; none where it stays what it is. Archives and what was not accepted are no disks.
pub fn wanted(service: &Service, image: &Image, contents: &Contents) -> Option<DiskFormat> {
    let bare = image.container_format.as_deref() == Some("bare") && contents.quarantined.is_none();
    let disk = image.disk_format.as_deref().filter(|format| bare && DISKS.contains(format));
    service.options.convert_to.filter(|to| disk.is_some_and(|format| format != to.as_str()))
}

/// Refuses a disk that conversion would make larger than its project may have: a raw file has the disk's whole length.
/// How much a qcow2 will have shows when it is made.
pub fn fits(reader: &mut Reader, service: &Service, image: &Image, to: DiskFormat, virtual_size: u64) -> Result<()> {
    match to {
        DiskFormat::Raw => quota::precheck(reader, &service.options.quota, image, quota::SIZE, virtual_size),
        _ => Ok(()),
    }
}

/// The same of bytes that are staged and will be converted by a job.
pub fn staged_fits(reader: &mut Reader, service: &Service, image: &Image, staged: &Staged) -> Result<()> {
    // What the inspection refuses, the job refuses with its reason.
    let Ok((virtual_size_bytes, quarantined)) = judge(image, &staged.findings, &service.options) else { return Ok(()) };
    let contents = Contents { virtual_size_bytes, quarantined, ..staged.contents.clone() };
    match (wanted(service, image, &contents), virtual_size_bytes) {
        (Some(to), Some(virtual_size)) => fits(reader, service, image, to, virtual_size),
        _ => Ok(()),
    }
}

/// Converts the transfer's file. What it is afterwards, and its lock.
pub async fn convert(
    service: &Arc<Service>,
    files: &Files,
    (image, nonce): (&ImageId, &str),
    from: Option<String>,
    to: DiskFormat,
    contents: Contents,
) -> Result<(Contents, File)> {
    let virtual_size = contents.virtual_size_bytes.unwrap_or(contents.size_bytes);
    let most = service.options.size_limit_bytes;
    if to == DiskFormat::Raw && virtual_size > most {
        return Err(Fault::too_large(format!(
            "The disk has {virtual_size} bytes, and imports make raw files of disks, of at most {most} bytes."
        )));
    }
    let _alone = service.conversion.acquire().await;
    let (asked, id) = (service.clone(), image.clone());
    let looked = service.store.read_few(move |reader| match reader.get::<Image>(&id)? {
        Some(image) => fits(reader, &asked, &image.doc, to, virtual_size),
        None => Ok(()),
    });
    looked.await?;
    let partial = files.path(&Files::partial(image, nonce));
    let target = files.path(&Files::converted(image, nonce));
    let (limits, enforced) = (service.options.format_limits.clone(), service.options.format_enforcement);
    let cpu_s = service.options.deadlines.seconds(Operation::Image).max(1) as u64;
    let work = move || {
        let conversion = Conversion { from, to: to.as_str().to_owned(), cpu_s: Some(cpu_s), ..Conversion::default() };
        let converted = workshop::convert(&partial, &target, &conversion).map_err(broken)?;
        let file = File::open(&target).and_then(|file| file.lock().map(|()| file)).map_err(failed)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o640)).map_err(failed)?;
        // What a guest has written into its disk may be anything, another format as well.
        let findings = format::OnDisk::new(file.try_clone().map_err(failed)?).and_then(|file| format::examine(&file));
        let (virtual_size_bytes, quarantined) =
            match format::decide(to.as_str(), "bare", &findings.map_err(failed)?, &limits) {
                Decision::Accept(accepted) => (accepted.virtual_size, None),
                Decision::Refuse(why) if enforced => {
                    return Err(Fault::unsupported_media(format!("What the image was converted to is refused: {why}")));
                }
                Decision::Refuse(why) => (None, Some(why)),
            };
        let (md5, sha512) = digests(&file).map_err(failed)?;
        std::fs::rename(&target, &partial).map_err(failed)?;
        let size_bytes = converted.size_bytes;
        let contents = Contents { size_bytes, virtual_size_bytes, quarantined, md5, sha512, ..contents };
        Ok((contents, file))
    };
    service.beside(work).await
}

fn failed(error: std::io::Error) -> Fault {
    Fault::unavailable("The image service cannot convert an image.").because(error)
}

/// Bytes that are refused are refused again; what else goes wrong may come right.
fn broken(error: workshop::Error) -> Fault {
    match error {
        workshop::Error::Refused(why) => Fault::unsupported_media(format!("The image cannot be converted: {why}.")),
        workshop::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            Fault::too_large("Image storage media is full.").because(source)
        }
        other => Fault::unavailable("The image could not be converted.").because(other),
    }
}

/// MD5 and SHA-512 in hex.
fn digests(mut file: &File) -> std::io::Result<(String, String)> {
    let (mut md5, mut sha512, mut piece) = (Md5::new(), Sha512::new(), vec![0; PIECE]);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok((hex(&md5.finalize()), hex(&sha512.finalize())));
        }
        md5.update(&piece[..read]);
        sha512.update(&piece[..read]);
    }
}
