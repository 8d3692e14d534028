//! Making a guest's files and process.

use super::hold::{self, Held};
use super::{Actor, console};
use crate::agent::Host;
use crate::fault;
use crate::files::{self, GuestFiles};
use crate::images;
use crate::iso;
use crate::ledger::{Ledger, blocking};
use crate::metadata;
use agent_api::{AgentFault, DiskFormat, GuestSpec, RootDisk};
use qemu::{Disk, DiskSource, Format, Launch, Machine, NicDevice, RunState};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

impl Actor {
    /// Makes the process, stopped before its first instruction or before its saved memory has come back.
    pub(super) async fn start(&mut self, ledger: &Ledger) -> Result<(), AgentFault> {
        let spec = &ledger.spec;
        let image = tokio::select! {
            image = image(&self.host, ledger) => image?,
            // A new wish, perhaps to be gone: an image may take minutes.
            _ = self.woken.changed() => return Ok(()),
        };
        let resume = ledger.done.memory_saved;
        let volumes = self.open_volumes(ledger, resume).await?;
        let (mut disks, nics) = tokio::try_join!(self.disks(ledger, image, resume), self.nics(spec))?;
        disks.extend(volumes);
        let process = self.launch(spec, disks, nics, resume)?;
        let pid = process.pid;
        let begun = self.begin(&process);
        let written = async {
            // Saved memory is good until the guest goes on: then the ledger is written there.
            if resume { Ok(()) } else { self.ledger.begin_life(begun).await }
        };
        let socket = self.files.monitor();
        // QEMU takes a while until it answers. All else is done meanwhile, before the guest's first instruction.
        let (held, written, wired, ()) = tokio::join!(
            Held::connect(process, &socket),
            written,
            self.wire_ports(spec),
            self.confine(pid, spec.vcpus)
        );
        match held {
            Ok(held) => {
                written.map_err(|error| fault::disk("server's ledger", &error))?;
                // What failed is a step of its own next, and then shows its fault.
                self.wired = wired.is_ok();
                self.held = Some(held);
                self.volumes_started();
                self.told = (!resume).then_some(RunState::Paused);
                tracing::info!(server = %self.id, pid, resume, "started");
                Ok(())
            }
            Err(error) => {
                let fault = self.did_not_start(&error).await;
                for nic in &spec.nics {
                    self.host.wiring.unwire(&nic.port).await;
                }
                Err(fault)
            }
        }
    }

    async fn nics(&self, spec: &GuestSpec) -> Result<Vec<NicDevice>, AgentFault> {
        let mut nics = Vec::new();
        for (at, nic) in spec.nics.iter().enumerate() {
            let tap = self.host.wiring.open_tap(&nic.port).await?;
            nics.push(NicDevice { name: format!("port{at}"), mac: nic.mac.clone(), mtu: nic.mtu, tap });
        }
        Ok(nics)
    }

    /// Brings the taps that the process holds into their networks.
    pub(super) async fn wire_ports(&self, spec: &GuestSpec) -> Result<(), AgentFault> {
        for nic in &spec.nics {
            self.host.wiring.wire(&nic.port).await?;
        }
        Ok(())
    }

    /// Brings the process into the guest's scope or control groups; one that an agent left before it had done so, too.
    pub(super) async fn confine(&self, pid: i32, vcpus: u32) {
        let id = self.id.clone();
        if let Some(scopes) = self.host.scopes.clone() {
            // Beside everything else: a guest that is in no scope runs as well.
            tokio::spawn(async move {
                if let Err(error) = scopes.ensure(&id, pid, vcpus).await {
                    tracing::warn!(server = %id, %error, "the guest is in no scope of its own");
                }
            });
            return;
        }
        let cgroups = self.host.cgroups.clone();
        let entered = tokio::task::spawn_blocking(move || cgroups.enter(&id, vcpus, pid)).await;
        if let Some(problem) = entered.unwrap_or_else(|error| Some(error.to_string())) {
            tracing::warn!(server = %self.id, problem, "the guest runs without limits of its own");
        }
    }

    /// The process has refused its command line, or hangs.
    async fn did_not_start(&mut self, error: &qemu::Error) -> AgentFault {
        if let Ok(Some(process)) = qemu::process::find(&hold::process_name(&self.host, &self.id))
            .first()
            .map_or(Ok(None), |seen| qemu::Process::open(seen.pid))
        {
            process.kill();
            process.ended().await;
            process.exit_reason();
        }
        // It never ran, so it has not ended by itself.
        if let Err(error) = self.ledger.update(|ledger| ledger.done.end_life()).await {
            return fault::disk("server's ledger", &error);
        }
        let said = console::last(&self.files.qemu_log(), 1000).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        fault::qemu("start the server", &format!("{error}; QEMU said: {}", said.trim_end()))
    }

    async fn disks(&self, ledger: &Ledger, image: Option<File>, resume: bool) -> Result<Vec<Disk>, AgentFault> {
        let mut disks = Vec::new();
        let spec = &ledger.spec;
        if let Some(root) = spec.root.clone() {
            let files = self.files.clone();
            let made = tokio::task::spawn_blocking(move || root_disk(&files, &root, image)).await;
            disks.push(made.unwrap_or_else(|error| Err(fault::bug(&error)))?);
        }
        if spec.config_drive {
            let (files, metadata) = (self.files.clone(), spec.told());
            let drive = blocking(move || config_drive(&files, &metadata, resume)).await;
            disks.push(drive.map_err(|error| fault::disk("config drive", &error))?);
        }
        Ok(disks)
    }

    fn launch(
        &self,
        spec: &GuestSpec,
        disks: Vec<Disk>,
        nics: Vec<NicDevice>,
        resume: bool,
    ) -> Result<qemu::Process, AgentFault> {
        let options = &self.host.options;
        let io = |error: io::Error| fault::disk("server's files", &error);
        let Some(lock) = hold::lock(&self.files.lock()).map_err(io)? else {
            return Err(fault::qemu("start the server", &"its lock is held, though no process was found"));
        };
        console::cut(&self.files).map_err(io)?;
        let incoming = if resume { Some(feed(&self.files).map_err(io)?) } else { None };
        let machine = Machine {
            name: hold::process_name(&self.host, &self.id),
            uuid: self.id.to_string(),
            accel: self.host.accel,
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            share_memory: options.ksm.offers(),
            disks,
            nics,
            qmp: unixfd::listen(&self.files.monitor()).map_err(io)?.into(),
            serial: unixfd::listen(&self.files.serial()).map_err(io)?.into(),
            console_log: appended(&self.files.console_log()).map_err(io)?.into(),
            incoming,
            keep: vec![lock.into()],
        };
        let launch = Launch {
            program: options.qemu.clone(),
            line: machine.command_line(),
            user: options.guest_user,
            groups: self.host.guest_groups.clone(),
            stderr: appended(&self.files.qemu_log()).map_err(io)?,
            // Under pressure a guest goes before the services that the host itself needs.
            oom_score_adj: 200,
        };
        launch.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => AgentFault {
                message: "QEMU is not installed on the host. It is tried again; install qemu-system-x86.".into(),
                detail: format!("{}: {error}", options.qemu.display()),
                retried: true,
            },
            _ => fault::qemu("start the server", &error),
        })
    }
}

/// The image below its root disk; none for a guest that boots from a volume, or whose disk stands alone.
pub(super) async fn image(host: &Host, ledger: &Ledger) -> Result<Option<File>, AgentFault> {
    match ledger.image() {
        Some(image) => host.images.ensure(&image).await.map(Some),
        None => Ok(None),
    }
}

fn appended(path: &std::path::Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(path)
}

/// A pipe that gives the saved memory. Whoever reads it may end at any time.
fn feed(files: &GuestFiles) -> io::Result<OwnedFd> {
    let mut memory = File::open(files.memory())?;
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    tokio::task::spawn_blocking(move || {
        if let Err(error) = io::copy(&mut memory, &mut File::from(write)) {
            tracing::warn!(%error, "saved memory was not read to its end");
        }
    });
    Ok(read)
}

/// The overlay, made when it is not there, and the image below it; without one, the disk that stands alone.
pub(super) fn root_disk(files: &GuestFiles, root: &RootDisk, image: Option<File>) -> Result<Disk, AgentFault> {
    let disk = |error: io::Error| fault::disk("root disk", &error);
    let format = match root.format {
        DiskFormat::Raw => Format::Raw,
        DiskFormat::Qcow2 => Format::Qcow2,
    };
    let path = files.root_disk();
    if let Some(image) = image.as_ref().filter(|_| !path.exists()) {
        let least = qemu::overlay::virtual_size(image, format).map_err(disk)?;
        let size = if root.size_gib == 0 { least } else { root.size_gib << 30 };
        if size < least {
            let needed = least.div_ceil(1 << 30);
            return Err(fault::refused(format!(
                "The flavor's disk of {} GiB is smaller than the image's {needed} GiB. Choose a larger flavor.",
                root.size_gib
            )));
        }
        let partial = path.with_extension("partial");
        let made = || -> io::Result<()> {
            let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
            let name = format!("../../images/{}", images::file_name(&root.into()));
            qemu::overlay::write(&file, size, &name, format)?;
            // Its name is made to last with the ledger that is written next to it before the guest runs.
            std::fs::rename(&partial, &path)
        };
        if let Err(error) = made() {
            let _ = files::remove(&partial);
            return Err(disk(error));
        }
    }
    let overlay = File::options().read(true).write(true).open(&path).map_err(disk)?;
    let below = |image: File| DiskSource { node: None, format, file: image.into(), read_only: true, backing: None };
    let source = DiskSource {
        node: None,
        format: Format::Qcow2,
        file: overlay.into(),
        read_only: false,
        backing: image.map(|image| Box::new(below(image))),
    };
    Ok(Disk { name: "root".into(), serial: "root".into(), source, boot_index: Some(0), slot: None })
}

/// The config drive, made anew at each cold start; a guest that comes back from memory finds the one it knows.
fn config_drive(files: &GuestFiles, of: &agent_api::InstanceMetadata, resume: bool) -> io::Result<Disk> {
    let path = files.config_drive();
    if !(resume && path.exists()) {
        let partial = path.with_extension("partial");
        std::fs::write(&partial, iso::build("config-2", &metadata::config_drive(of))?)?;
        std::fs::rename(&partial, &path)?;
    }
    let file = File::open(&path)?.into();
    let source = DiskSource { node: None, format: Format::Raw, file, read_only: true, backing: None };
    // In the last slot: the guest finds it after its volumes.
    let slot = Some(qemu::disk::SLOTS - 1);
    Ok(Disk { name: "config".into(), serial: "config".into(), source, boot_index: None, slot })
}
