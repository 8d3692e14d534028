//! Faults as their owner reads them: cause and cure, no host paths.

use agent_api::AgentFault;
use std::io;

/// A disk of the host did not do what it should. `what` names the thing that was to be written.
pub fn disk(what: &str, error: &io::Error) -> AgentFault {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let message = if matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) {
        format!(
            "The host's directory for the {what} is read-only. It is tried again; the operator must make it writable."
        )
    } else if full {
        format!("The host's disk is full: no room for the {what}. It is tried again; the operator must free space.")
    } else {
        format!("The host could not write or read the {what}. It is tried again; the host's log says more.")
    };
    AgentFault { message, detail: format!("{what}: {error}"), retried: true }
}

/// QEMU did not do what it should. Where it says that a disk of the host is full, that is the cause.
pub fn qemu(what: &str, error: &dyn std::fmt::Display) -> AgentFault {
    let said = error.to_string();
    let cause = [
        ("No space left on device", io::ErrorKind::StorageFull),
        ("Read-only file system", io::ErrorKind::ReadOnlyFilesystem),
    ];
    if let Some((_, kind)) = cause.iter().find(|(words, _)| said.contains(words)) {
        return AgentFault { detail: format!("{what}: {said}"), ..disk("server's disks", &(*kind).into()) };
    }
    AgentFault {
        message: format!("The hypervisor could not {what}. It is tried again; the host's log says more."),
        detail: format!("{what}: {error}"),
        retried: true,
    }
}

/// The spec asks for something that cannot be.
pub fn refused(message: impl Into<String>) -> AgentFault {
    let message = message.into();
    AgentFault { detail: message.clone(), message, retried: false }
}

/// A broken invariant of ours.
pub fn bug(error: &dyn std::fmt::Display) -> AgentFault {
    tracing::error!(%error, "bug in the agent");
    AgentFault {
        message: "The host ran into an internal error. It is tried again.".into(),
        detail: error.to_string(),
        retried: true,
    }
}
