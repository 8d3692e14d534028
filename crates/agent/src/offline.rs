//! What the program does to a host whose agent does not run: stopping guests for `down`, removing all of them for
//! `purge`. Found by the kernel's own listing, checked by the guests' user; never by a process's name alone.

use crate::files::Layout;
use crate::ledger::LedgerFile;
use base::{CloudId, ServerId};
use qemu::monitor::{Monitor, RunState};
use qemu::process::{self, Process};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Running guests of the cloud. `uid` is the guests' user; a process of another user only bears the name.
fn running(cloud: &CloudId, uid: u32) -> Vec<(ServerId, i32)> {
    let prefix = format!("nubo-{cloud}-");
    let seen = process::find(&prefix).into_iter().filter(|seen| seen.uid == uid);
    let id = |name: &str| Some(ServerId::new(name.strip_prefix(&prefix)?.split('@').next()?));
    seen.filter_map(|seen| Some((id(&seen.name)?, seen.pid))).collect()
}

/// Presses every guest's power button, and ends those that have not switched themselves off within `patience`.
/// Returns how many ran. Call it inside a runtime, after the agent has ended.
pub async fn stop_guests(state: &Path, cloud: &CloudId, uid: u32, patience: Duration) -> io::Result<usize> {
    let layout = Layout::new(state);
    let guests = running(cloud, uid);
    let mut waiting = Vec::new();
    for (id, pid) in &guests {
        let Some(process) = Process::open(*pid)? else { continue };
        let files = layout.guest(id);
        // It ends because the cloud does: like after a reboot of the host it comes back with the next agent.
        if let Ok(ledger) = LedgerFile::load(files.clone()) {
            ledger.update(|ledger| ledger.done.ending = true).await?;
        }
        waiting.push((process, files.monitor()));
    }
    let all = futures::future::join_all(waiting.iter().map(|(process, monitor)| switch_off(process, monitor)));
    let _ = tokio::time::timeout(patience, all).await;
    end(waiting.iter().map(|(process, _)| process)).await?;
    Ok(guests.len())
}

/// Presses the power button until the guest has switched itself off, then ends its process, which would stay.
async fn switch_off(process: &Process, socket: &Path) {
    let Ok(socket) = unixfd::connect(socket) else { return };
    let Ok(monitor) = Monitor::connect(socket).await else { return };
    for round in 0u64.. {
        match monitor.state().await {
            Ok(RunState::Running) if round % 50 == 0 => {
                let _ = monitor.press_power().await;
            }
            Ok(RunState::Running) => {}
            _ => break,
        }
        tokio::select! {
            () = process.ended() => return,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
    let _ = monitor.quit().await;
    process.ended().await;
}

/// Ends every guest at once. Call it inside a runtime, after the agent has ended.
pub async fn kill_guests(cloud: &CloudId, uid: u32) -> io::Result<usize> {
    let mut processes = Vec::new();
    for (_, pid) in running(cloud, uid) {
        processes.extend(Process::open(pid)?);
    }
    end(processes.iter()).await?;
    Ok(processes.len())
}

async fn end(processes: impl Iterator<Item = &Process> + Clone) -> io::Result<()> {
    for process in processes.clone() {
        process.kill();
    }
    for process in processes {
        let ended = tokio::time::timeout(Duration::from_secs(10), process.ended()).await;
        ended.map_err(|_| io::Error::other(format!("process {} does not end", process.pid)))?;
    }
    Ok(())
}

/// Puts the host's switch for shared memory back to where it stood, where the agent was killed before it had.
pub fn restore_ksm(state: &Path) -> io::Result<()> {
    let record = Layout::new(state).ksm;
    crate::ksm::restore(Path::new(crate::ksm::FOLDER), &record, &crate::inventory::boot_id())
}

/// Removes the cloud's control groups, after its guests have ended.
pub fn remove_cgroups(cloud: &CloudId) -> io::Result<()> {
    crate::cgroup::Cgroups::detect(cloud).remove_all()
}

/// The cloud's directory of control groups in each hierarchy in which it has one.
pub fn cgroups(cloud: &CloudId) -> Vec<std::path::PathBuf> {
    crate::cgroup::Cgroups::detect(cloud).bases().filter(|path| path.is_dir()).collect()
}

/// Makes a guest's control groups and puts its process into them.
pub fn join_cgroups(cloud: &CloudId, id: &ServerId, vcpus: u32, pid: i32) -> io::Result<()> {
    let problem = crate::cgroup::Cgroups::detect(cloud).enter(id, vcpus, pid);
    problem.map_or(Ok(()), |problem| Err(io::Error::other(problem)))
}
