//! A disagreement, and what ends it.

use serde::Serialize;
use std::path::PathBuf;

/// Something that is not as it shall be. Ordered, so that two looks can be compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The object, by the name that people gave it: `server demo`; or what it is and where.
    pub object: String,
    /// Its id, where it has one.
    pub id: String,
    /// A sentence without its subject. The same in two looks at the same damage.
    pub what: String,
    pub repair: Repair,
}

/// What ends a disagreement. Each of them can be carried out twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Repair {
    /// Nothing that fsck may do; why, and what a person can do.
    Hand {
        why: String,
    },
    /// The supervisor starts, and starts or adopts what is missing.
    StartParts,
    /// A process that was stopped goes on.
    Continue {
        pid: i32,
        started: u64,
    },
    /// A process that is nobody's, or that cannot go on as it is, ends.
    Kill {
        pid: i32,
        started: u64,
    },
    /// LXC ends a container, whatever is in it; its files stay.
    StopContainer {
        name: String,
        folder: PathBuf,
        /// Its monitor.
        pid: i32,
        started: u64,
    },
    WritePid {
        path: PathBuf,
        pid: i32,
    },
    /// The address of the API is written down again.
    WriteUrl,
    /// Directories of the state with owner and mode; what control and clients read at their start.
    State,
    Mode {
        path: PathBuf,
        mode: u32,
    },
    RemoveAccount {
        name: String,
    },
    /// Into `lost+found` of the state, where a person can look at it.
    Quarantine {
        path: PathBuf,
    },
    /// A whole copy replaces or becomes a file; what stood there goes into `lost+found`.
    Copy {
        from: PathBuf,
        to: PathBuf,
    },
    /// The name of the image below, in the overlay's header.
    Backing {
        path: PathBuf,
        name: String,
    },
    RemoveNamespace {
        name: String,
    },
    RemoveLink {
        namespace: Option<String>,
        name: String,
    },
    RemoveTable {
        namespace: String,
        family: String,
        name: String,
    },
    RemoveCgroup {
        path: PathBuf,
    },
    JoinCgroup {
        server: String,
        vcpus: u32,
        pid: i32,
        started: u64,
    },
    /// Control mends the document, or fsck itself while control is down.
    Store {
        kind: String,
        id: String,
        cure: String,
    },
    /// The agent looks at this host again and does what its view says.
    Agent,
    /// A process cannot be given back what it lost: its server is started anew, from its own disk.
    Reboot {
        server: String,
    },
}

impl Repair {
    pub fn hand(why: impl Into<String>) -> Repair {
        Repair::Hand { why: why.into() }
    }

    pub fn is_possible(&self) -> bool {
        !matches!(self, Repair::Hand { .. })
    }

    /// As a line of the plan.
    pub fn plan(&self) -> String {
        match self {
            Repair::Hand { why } => format!("by hand: {why}"),
            Repair::StartParts => "start the supervisor".into(),
            Repair::Continue { pid, .. } => format!("let process {pid} go on"),
            Repair::Kill { pid, .. } => format!("end process {pid}"),
            Repair::StopContainer { name, folder, .. } => format!("stop the container {name} of {}", folder.display()),
            Repair::WritePid { path, pid } => format!("write {pid} into {}", path.display()),
            Repair::WriteUrl => "write down the API's address".into(),
            Repair::State => "make the state directory's files and modes again".into(),
            Repair::Mode { path, mode } => format!("chmod {mode:o} {}", path.display()),
            Repair::RemoveAccount { name } => format!("remove the account {name}"),
            Repair::Quarantine { path } => format!("move {} to lost+found", path.display()),
            Repair::Copy { from, to } => format!("copy {} to {}", from.display(), to.display()),
            Repair::Backing { path, name } => format!("write the name {name} into {}", path.display()),
            Repair::RemoveNamespace { name } => format!("remove the namespace {name}"),
            Repair::RemoveLink { namespace, name } => {
                format!("remove the link {name}{}", namespace.as_ref().map_or(String::new(), |ns| format!(" in {ns}")))
            }
            Repair::RemoveTable { namespace, family, name } => {
                format!("remove the nft table {family} {name} in {namespace}")
            }
            Repair::RemoveCgroup { path } => format!("remove {}", path.display()),
            Repair::JoinCgroup { pid, .. } => format!("put process {pid} into its control groups"),
            Repair::Store { cure, .. } => format!("in the store: {cure}"),
            Repair::Agent => "let the agent look again".into(),
            Repair::Reboot { server } => format!("start server {server} anew"),
        }
    }
}

impl Finding {
    pub fn new(object: impl Into<String>, id: impl Into<String>, what: impl Into<String>, repair: Repair) -> Finding {
        Finding { object: object.into(), id: id.into(), what: what.into(), repair }
    }

    /// The same damage, whatever would mend it.
    pub fn says_the_same(&self, other: &Finding) -> bool {
        (&self.object, &self.id, &self.what) == (&other.object, &other.id, &other.what)
    }

    /// As a line of the listing.
    pub fn line(&self) -> String {
        let id = if self.id.is_empty() || self.object.contains(&self.id) {
            String::new()
        } else {
            format!(" ({})", self.id)
        };
        format!("{}{id}: {}", self.object, self.what)
    }
}
