//! A disk on its way from a host to control: one byte that says which, then the length and the bytes, or an error.
//!
//! A stream that breaks must not look like a short disk, and a host that takes its time must not look dead: so the
//! stream is opened at once, and its first byte comes when the copy is made.

use crate::{BoxStream, LinkError};
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const DISK: u8 = 0;
const ERROR: u8 = 1;
/// The most bytes of an error.
const ERROR_BYTES: u64 = 4_096;

/// The host's side: sends a disk of `length` bytes, or why there is none.
///
/// # Errors
/// What reading or sending says.
pub async fn send_disk<W: AsyncWrite + Unpin + Send>(
    to: &mut W,
    disk: Result<(u64, Pin<Box<dyn AsyncRead + Send>>), String>,
) -> std::io::Result<()> {
    match disk {
        Ok((length, bytes)) => {
            to.write_all(&[DISK]).await?;
            to.write_all(&length.to_be_bytes()).await?;
            tokio::io::copy(&mut bytes.take(length), to).await?;
        }
        Err(error) => {
            to.write_all(&[ERROR]).await?;
            to.write_all(error.as_bytes()).await?;
        }
    }
    to.shutdown().await
}

/// Control's side: waits for the first byte, and returns the length. The bytes follow in the stream.
///
/// # Errors
/// What the host says, or that the stream broke.
pub async fn receive_disk(stream: &mut BoxStream) -> Result<Result<u64, String>, LinkError> {
    let broken = |error: std::io::Error| LinkError(format!("the disk did not come: {error}"));
    match stream.read_u8().await.map_err(broken)? {
        DISK => Ok(Ok(stream.read_u64().await.map_err(broken)?)),
        ERROR => {
            let mut text = Vec::new();
            stream.take(ERROR_BYTES).read_to_end(&mut text).await.map_err(broken)?;
            Ok(Err(String::from_utf8_lossy(&text).into_owned()))
        }
        other => Err(LinkError(format!("a disk cannot begin with {other}"))),
    }
}
