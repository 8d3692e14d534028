//! A guest's console log: bounded, whatever the guest writes.

use crate::files::GuestFiles;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// A log is cut when it is longer than this…
const MOST_BYTES: u64 = 4 << 20;
/// …and this much of it is kept.
const KEPT_BYTES: u64 = 1 << 20;

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
