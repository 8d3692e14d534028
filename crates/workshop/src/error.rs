//! What can go wrong, in words for whoever gave the command.

use std::io;
use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes, or what was asked for. A whole sentence or clause.
    #[error("{0}")]
    Refused(String),
    #[error("{} is there already; --force replaces it", .0.display())]
    Exists(PathBuf),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{program} {ended}{}{said}", if .said.is_empty() { "" } else { ": " })]
    Tool { program: String, ended: String, said: String },
}

impl Error {
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
        Error::doing(path.display().to_string())
    }

    pub(crate) fn doing(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}
