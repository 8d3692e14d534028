//! Bytes on their way into a file: hashed, counted, and unpacked no further than a limit.

use crate::child::{failure, limited};
use crate::error::{Error, Result};
use sha2::{Digest, Sha256, Sha512};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::process::Stdio;

const PIECE: usize = 1 << 20;
const BLOCK: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha512,
    Sha256,
}

impl Hash {
    pub fn digits(self) -> usize {
        match self {
            Hash::Sha512 => 128,
            Hash::Sha256 => 64,
        }
    }

    pub fn new(self) -> Hasher {
        match self {
            Hash::Sha512 => Hasher::Sha512(Sha512::new()),
            Hash::Sha256 => Hasher::Sha256(Sha256::new()),
        }
    }
}

pub(crate) enum Hasher {
    Sha512(Sha512),
    Sha256(Sha256),
}

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha512(hasher) => hasher.update(bytes),
            Hasher::Sha256(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> String {
        match self {
            Hasher::Sha512(hasher) => hex(&hasher.finalize()),
            Hasher::Sha256(hasher) => hex(&hasher.finalize()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The checksum of a file.
pub(crate) fn sum(file: &File, hash: Hash) -> io::Result<String> {
    let mut hasher = hash.new();
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    loop {
        let length = file.read_at(&mut buffer, at)?;
        if length == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..length]);
        at += length as u64;
    }
}

/// Writes a file in which blocks of zeros are holes.
struct Sparse<'a> {
    file: &'a File,
    at: u64,
}

impl Sparse<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for block in bytes.chunks(BLOCK) {
            if block.iter().any(|byte| *byte != 0) {
                self.file.write_all_at(block, self.at)?;
            }
            self.at += block.len() as u64;
        }
        Ok(())
    }
}

/// Unpacks an xz file into an empty one.
///
/// # Errors
/// Refused where it unfolds to more than `most_bytes`; Tool where it is no sound xz file.
pub(crate) fn xz(packed: &File, into: &File, most_bytes: u64) -> Result<u64> {
    let failed = || Error::doing("unpacking");
    let input = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(packed))).map_err(failed())?;
    let mut command = limited("xz", 0);
    command.args(["-dc", "-T1", "--memlimit-decompress=1GiB"]);
    let mut child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed())?;
    let copied = match child.stdout.take() {
        Some(mut out) => copy(&mut out, into, most_bytes),
        None => Ok(0),
    };
    if copied.is_err() {
        let _ = child.kill();
    }
    let output = child.wait_with_output().map_err(failed())?;
    let length = copied?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(failure(&command, &crate::child::Output { status: output.status, stdout: String::new(), stderr }));
    }
    Ok(length)
}

fn copy(from: &mut impl Read, into: &File, most_bytes: u64) -> Result<u64> {
    let failed = || Error::doing("unpacking");
    let mut sparse = Sparse { file: into, at: 0 };
    let mut buffer = vec![0; PIECE];
    loop {
        let mut filled = 0;
        // Whole pieces, so that blocks of zeros lie where blocks of the file lie.
        while filled < buffer.len() {
            match from.read(&mut buffer[filled..]).map_err(failed())? {
                0 => break,
                length => filled += length,
            }
        }
        if sparse.at + filled as u64 > most_bytes {
            return Err(Error::Refused(format!("the file unfolds to more than {most_bytes} bytes, which are allowed")));
        }
        sparse.write(&buffer[..filled]).map_err(failed())?;
        if filled < buffer.len() {
            into.set_len(sparse.at).map_err(failed())?;
            return Ok(sparse.at);
        }
    }
}

/// Takes bytes in: into a file, with their checksum, and no more than are allowed.
pub(crate) struct Intake<'a> {
    file: &'a File,
    hasher: Hasher,
    pub length: u64,
    most_bytes: u64,
}

impl<'a> Intake<'a> {
    pub fn new(file: &'a File, hash: Hash, most_bytes: u64) -> Intake<'a> {
        Intake { file, hasher: hash.new(), length: 0, most_bytes }
    }

    pub fn sum(self) -> String {
        self.hasher.finish()
    }
}

impl Write for Intake<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.length + bytes.len() as u64 > self.most_bytes {
            return Err(io::Error::other(format!("it has more than {} bytes, which are allowed", self.most_bytes)));
        }
        self.file.write_all_at(bytes, self.length)?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
