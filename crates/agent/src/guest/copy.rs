//! A copy of a guest's root disk, as it is at one moment, while the guest goes on.
//!
//! QEMU makes it, the guest's own or, for a guest that is stopped, one that never runs an instruction: the same sandbox
//! and the same descriptors, so that what a guest has written into its disk is never opened by a process of ours. The
//! copy has no name: it goes with the last descriptor, whoever dies.

use super::Guest;
use super::hold::{self, Held};
use super::start::root_disk;
use crate::agent::Host;
use crate::files::{self, GuestFiles};
use agent_api::ImageSource;
use base::ServerId;
use qemu::{Disk, Format, Launch, Machine, Monitor};
use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

/// How long a process that only copied may take to end.
const LAST: Duration = Duration::from_secs(10);

/// Makes the copy. The error may be shown to the server's owner.
pub async fn copy(host: &Host, id: &ServerId, guest: &Guest) -> Result<File, String> {
    let files = host.layout.guest(id);
    let failed = |error: io::Error| {
        tracing::warn!(server = %id, %error, "a disk cannot be copied");
        "The host cannot write the copy of the disk.".to_owned()
    };
    let size = File::open(files.root_disk()).and_then(|root| qemu::overlay::virtual_size(&root, Format::Qcow2));
    let mut target = nameless(&files, size.map_err(failed)?).map_err(failed)?;
    let refused = |error: qemu::Error| {
        tracing::warn!(server = %id, %error, "a disk cannot be copied");
        "The disk could not be copied.".to_owned()
    };
    match guest.monitor().await? {
        Some(monitor) => monitor.copy_disk("root", &target).await.map_err(refused)?,
        None => copy_at_rest(host, id, guest, &target).await?,
    }
    // QEMU has moved the place at which its descriptor reads, and ours is the same.
    target.rewind().map_err(failed)?;
    Ok(target)
}

/// The disk of a guest that has no process.
async fn copy_at_rest(host: &Host, id: &ServerId, guest: &Guest, target: &File) -> Result<(), String> {
    let files = host.layout.guest(id);
    let copier = start(host, id, guest, &files).await?;
    let copied = copier.monitor.copy_disk("root", target).await;
    let quit = copier.monitor.quit().await;
    if quit.is_err() || tokio::time::timeout(LAST, copier.process.ended()).await.is_err() {
        copier.process.kill();
    }
    for socket in [files.copy_monitor(), files.copy_serial()] {
        if let Err(error) = files::remove(&socket) {
            tracing::warn!(server = %id, %error, "a socket of the copier stays");
        }
    }
    copied.map_err(|error| {
        tracing::warn!(server = %id, %error, "a disk cannot be copied");
        "The disk could not be copied.".to_owned()
    })
}

/// An empty qcow2 file that has no name any more.
fn nameless(files: &GuestFiles, size: u64) -> io::Result<File> {
    let path = files.copy();
    let file = File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    qemu::overlay::write_alone(&file, size)?;
    Ok(file)
}

/// A process that holds the disk of a stopped guest. It holds the guest's lock, too: nobody starts the guest meanwhile.
async fn start(host: &Host, id: &ServerId, guest: &Guest, files: &GuestFiles) -> Result<Held, String> {
    let spec = guest.ledger.read().spec.clone();
    let Some(disk) = spec.root.clone() else {
        return Err("The server boots from a volume and has no disk of its own.".into());
    };
    let image = host.images.ensure(&ImageSource::from(&disk)).await.map_err(|fault| fault.message)?;
    let failed = |error: io::Error| {
        tracing::warn!(server = %id, %error, "no process for a copy");
        "The host cannot start the copying of the disk.".to_owned()
    };
    let Some(lock) = hold::lock(&files.lock()).map_err(failed)? else {
        return Err("The server is starting or stopping; it is tried again.".into());
    };
    let root: Disk = root_disk(files, &disk, image).map_err(|fault| fault.message)?;
    let machine = Machine {
        name: hold::copier_name(host, id),
        uuid: id.to_string(),
        accel: qemu::Accel::Tcg,
        vcpus: 1,
        memory_mib: 64,
        disks: vec![root],
        nics: Vec::new(),
        qmp: unixfd::listen(&files.copy_monitor()).map_err(failed)?.into(),
        serial: unixfd::listen(&files.copy_serial()).map_err(failed)?.into(),
        console_log: File::options().append(true).open("/dev/null").map_err(failed)?.into(),
        incoming: None,
        keep: vec![lock.into()],
    };
    let stderr = File::options().append(true).create(true).mode(0o600).open(files.qemu_log()).map_err(failed)?;
    let launch = Launch {
        program: host.options.qemu.clone(),
        line: machine.command_line(),
        user: host.options.guest_user,
        groups: Vec::new(),
        stderr,
        oom_score_adj: 500,
    };
    let process = launch.spawn().map_err(failed)?;
    Held::connect(process, &files.copy_monitor()).await.map_err(|error| {
        tracing::warn!(server = %id, %error, "the copier does not answer");
        "The host cannot start the copying of the disk.".to_owned()
    })
}

impl Guest {
    /// The monitor of the guest's process; none: it has no process.
    async fn monitor(&self) -> Result<Option<Arc<Monitor>>, String> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let asked = async {
            let gone = || "the server is being removed".to_owned();
            self.requests.send(super::Request::Monitor { answer }).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())
        };
        let asked = tokio::time::timeout(Duration::from_secs(15), asked).await;
        asked.unwrap_or_else(|_| Err("The server is busy starting or stopping; it is tried again.".into()))
    }
}
