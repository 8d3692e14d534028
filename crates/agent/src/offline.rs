//! What the program does to a host whose agent does not run: stopping guests for `down`, removing all of them for
//! `purge`. Found by the kernel's own listing, checked by the guests' user; never by a process's name alone.

use crate::files::Layout;
use base::{CloudId, ServerId};
use qemu::monitor::Monitor;
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
        if let Ok(socket) = unixfd::connect(&layout.guest(id).monitor())
            && let Ok(monitor) = Monitor::connect(socket).await
        {
            let _ = monitor.press_power().await;
        }
        waiting.push(process);
    }
    let all = async {
        for process in &waiting {
            process.ended().await;
        }
    };
    if tokio::time::timeout(patience, all).await.is_err() {
        end(&waiting).await?;
    }
    Ok(guests.len())
}

/// Ends every guest at once. Call it inside a runtime, after the agent has ended.
pub async fn kill_guests(cloud: &CloudId, uid: u32) -> io::Result<usize> {
    let mut processes = Vec::new();
    for (_, pid) in running(cloud, uid) {
        processes.extend(Process::open(pid)?);
    }
    end(&processes).await?;
    Ok(processes.len())
}

async fn end(processes: &[Process]) -> io::Result<()> {
    for process in processes {
        process.kill();
    }
    for process in processes {
        let ended = tokio::time::timeout(Duration::from_secs(10), process.ended()).await;
        ended.map_err(|_| io::Error::other(format!("process {} does not end", process.pid)))?;
    }
    Ok(())
}

/// Removes the cloud's control groups, after its guests have ended.
pub fn remove_cgroups(cloud: &CloudId) -> io::Result<()> {
    crate::cgroup::Cgroups::detect(cloud).remove_all()
}
