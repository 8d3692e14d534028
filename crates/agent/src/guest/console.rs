//! A guest's console: its log, bounded whatever the guest writes, and a viewer that cannot hold the guest up.

use crate::files::GuestFiles;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// A log is cut when it is longer than this…
const MOST_BYTES: u64 = 4 << 20;
/// …and this much of it is kept.
const KEPT_BYTES: u64 = 1 << 20;

/// What a viewer may lag behind, in pieces of what QEMU writes (often a single byte): beyond that it misses some.
const LAG: usize = 65_536;

/// Stands between the serial port and its viewer. QEMU lets the guest wait when nobody reads the port, after as little
/// as 300 bytes, and with the guest everything in it that writes to its console.
pub fn pump(port: UnixStream) -> DuplexStream {
    let (viewer, ours) = tokio::io::duplex(16 << 10);
    let (mut from_port, mut to_port) = port.into_split();
    let (mut from_viewer, mut to_viewer) = tokio::io::split(ours);
    let (pieces, mut arriving) = mpsc::channel::<Vec<u8>>(LAG);
    let read = async move {
        let mut buffer = [0u8; 4096];
        while let Ok(length @ 1..) = from_port.read(&mut buffer).await {
            // A full queue is a viewer that does not read: it misses this piece, the guest goes on.
            let _ = pieces.try_send(buffer[..length].to_vec());
        }
    };
    let show = async move {
        while let Some(piece) = arriving.recv().await {
            if to_viewer.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = to_viewer.shutdown().await;
    };
    let type_in = async move { tokio::io::copy(&mut from_viewer, &mut to_port).await };
    tokio::spawn(async move {
        // Ends with the viewer, or when all that the port said has been shown.
        tokio::select! {
            _ = type_in => {}
            _ = async { tokio::join!(read, show) } => {}
        }
    });
    viewer
}

/// The last `bytes` bytes of a guest's console.
pub fn tail(files: &GuestFiles, bytes: u64) -> io::Result<Vec<u8>> {
    let bytes = bytes.min(KEPT_BYTES);
    let newest = last(&files.console_log(), bytes)?;
    let missing = bytes - newest.len() as u64;
    if missing == 0 {
        return Ok(newest);
    }
    let mut all = last(&files.console_log_before(), missing)?;
    all.extend(newest);
    Ok(all)
}

/// The last bytes of a file; nothing when it is not there.
pub fn last(path: &std::path::Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut content = Vec::new();
    file.take(bytes).read_to_end(&mut content)?;
    Ok(content)
}

/// Cuts logs that have grown too long. QEMU appends, so it goes on at the new end.
pub fn cut(files: &GuestFiles) -> io::Result<()> {
    let log = files.console_log();
    if length(&log) > MOST_BYTES {
        std::fs::write(files.console_log_before(), last(&log, KEPT_BYTES)?)?;
        File::options().write(true).open(&log)?.set_len(0)?;
    }
    let own = files.qemu_log();
    if length(&own) > KEPT_BYTES {
        File::options().write(true).open(&own)?.set_len(0)?;
    }
    Ok(())
}

fn length(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |about| about.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_viewer_that_does_not_read_holds_nobody_up() {
        let (mut guest, port) = UnixStream::pair().unwrap();
        let mut viewer = pump(port);
        for _ in 0..3 * LAG {
            guest.write_all(b"x").await.unwrap();
        }
        viewer.write_all(b"hello").await.unwrap();
        let mut typed = [0u8; 5];
        guest.read_exact(&mut typed).await.unwrap();
        assert_eq!(&typed, b"hello");
        drop(guest);
        let mut shown = Vec::new();
        viewer.read_to_end(&mut shown).await.unwrap();
        assert!(!shown.is_empty() && shown.iter().all(|byte| *byte == b'x'));
    }

    #[test]
    fn the_log_stays_small_and_its_end_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let files = GuestFiles { folder: folder.path().into() };
        assert_eq!(tail(&files, 100).unwrap(), b"");
        let mut log = vec![b'x'; MOST_BYTES as usize];
        log.extend(b"the end");
        std::fs::write(files.console_log(), &log).unwrap();
        cut(&files).unwrap();
        assert_eq!(length(&files.console_log()), 0);
        assert_eq!(tail(&files, 7).unwrap(), b"the end");
        std::fs::write(files.console_log(), b", again").unwrap();
        assert_eq!(tail(&files, 10).unwrap(), b"end, again");
        assert_eq!(tail(&files, u64::MAX).unwrap().len() as u64, KEPT_BYTES);
    }
}
