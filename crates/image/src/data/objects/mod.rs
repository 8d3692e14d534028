//! Places that keep bytes under a key and are no folder: S3, RBD, and one in memory.
//!
//! A driver knows keys and bytes, nothing of images. Every call ends: each has a limit on how long it waits.

pub mod memory;
pub mod rbd;
pub mod s3;
#[cfg(test)]
pub mod tests;

use async_trait::async_trait;
use base::Fault;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::fs::File;
use std::os::fd::AsRawFd;

/// Bytes on their way. One that ends early ends with an error.
pub type Bites = BoxStream<'static, std::io::Result<Bytes>>;

/// Why a place did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("has no object {0}")]
    Missing(String),
    #[error("is full")]
    Full,
    /// It answered, and did not do it.
    #[error("refuses: {0}")]
    Refused(String),
    #[error("does not answer: {0}")]
    Silent(String),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What a user is told of the store with this id.
    pub fn of(self, store: &str) -> Fault {
        match self {
            Error::Full => {
                Fault::too_large(format!("Image storage media is full: the image store '{store}' takes no more."))
            }
            Error::Missing(_) => {
                Fault::unavailable(format!("The image store '{store}' has lost an image.")).because(self)
            }
            other => Fault::unavailable(format!("The image store '{store}' {other}.")),
        }
    }
}

/// A place. Keys are made by [`key`] and never come from users.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// Glance's word for it: `s3`, `rbd`.
    fn kind(&self) -> &'static str;

    /// Whether it answers, and lets us in.
    async fn check(&self) -> Result<()>;

    /// Keeps the first `size_bytes` of a file. What has the key already is replaced; nobody ever sees a part of it.
    async fn put(&self, key: &str, file: &File, size_bytes: u64) -> Result<()>;

    /// `length` bytes from `first` on; both lie inside of the object. It is there once this returns.
    async fn get(&self, key: &str, first: u64, length: u64) -> Result<Bites>;

    /// None where there is no such object.
    async fn size(&self, key: &str) -> Result<Option<u64>>;

    /// Removes the object and whatever is half put of it. One that is gone is no error.
    async fn remove(&self, key: &str) -> Result<()>;

    /// The keys of all objects, those included that are half put. What bears other names is left out.
    async fn list(&self) -> Result<Vec<String>>;
}

/// The name of an object: what it holds, and which object of those bytes it is.
pub fn key(sha512: &str, nonce: &str) -> String {
    format!("{sha512}-{nonce}")
}

pub fn is_key(text: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let parts = text.split_once('-');
    parts.is_some_and(|(sha512, nonce)| sha512.len() == 128 && nonce.len() == 16 && hex(sha512) && hex(nonce))
}

/// The same file with an offset of its own.
pub fn reopened(file: &File) -> std::io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn unread(error: std::io::Error) -> Error {
    Error::Refused(format!("the bytes that it shall keep cannot be read ({})", error.kind()))
}
