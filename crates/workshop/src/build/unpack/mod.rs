//! A tarball that nobody has looked at, unpacked into a folder: so many bytes and members and no more, and nothing
//! outside of the folder.
//!
//! ```text
//! file ──▶ gzip, xz, zstd or bzip2 (limited) ──▶ bytes counted here ──▶ tar, in a root of its own ──▶ the tree
//!                                                                       └─ a line for each member, counted here
//! ```
//! tar itself strips what leads out of a name, refuses `..`, and makes links last. Should it be wrong, it sees a root
//! with the machine's programs, read-only, and the tree, in which no device can be opened and no program gains a right;
//! it has the capabilities for owners, devices and modes, and no other, and no network.

#[cfg(test)]
mod tests;

use crate::child::{self, limited_to, words};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is read of a name at a time; escaped, one may have four times the bytes of a path.
const NAME_BYTES: u64 = 64 << 10;
const PIECE: usize = 1 << 20;
/// What tar may use; it holds the names of links until the end.
const MEMORY_BYTES: u64 = 2 << 30;
/// Seconds of processor time whatever the size, and what is unpacked in one more.
const CPU_S: u64 = 600;
const BYTES_PER_CPU_S: u64 = 16 << 20;
/// Its arguments: the tree, the folder that becomes a root, `--`, and what is to be run there.
const JAIL: &str = include_str!("jail.sh");
const CAPABILITIES: &str = "--bounding-set=-all,+chown,+dac_override,+fowner,+fsetid,+mknod,+setfcap";
/// Of a file's attributes those that a system runs by; labels of SELinux are made anew by whoever uses them.
const ATTRIBUTES: [&str; 3] = ["--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability"];

/// How much comes out of a tarball at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    /// Of all that was unpacked, and of each file as it is seen, with its holes.
    pub bytes: u64,
    pub members: u64,
}

/// Programs that unpack, and how their files begin.
const PACKERS: [(&str, &[u8], &[&str]); 4] = [
    ("gzip", b"\x1f\x8b", &["-dc"]),
    ("xz", b"\xfd7zXZ\0", &["-dc", "-T1", "--memlimit-decompress=1GiB"]),
    ("zstd", b"\x28\xb5\x2f\xfd", &["-dc", "--memory=1024MB"]),
    ("bzip2", b"BZh", &["-dc"]),
];

/// Unpacks a tarball, packed or not, into the folder `tree`; `jail` is an empty folder that nobody else uses.
///
/// # Errors
/// Refused where there is more than `most`, where it is packed twice, and where it is no plain file; Tool where it is
/// damaged, or a member's name leads out of the tree.
pub(super) fn unpack(tarball: &Path, tree: &Path, jail: &Path, most: Most) -> Result<()> {
    let file = File::open(tarball).map_err(Error::at(tarball))?;
    if !file.metadata().map_err(Error::at(tarball))?.is_file() {
        return Err(Error::Refused(format!("{} is no plain file", tarball.display())));
    }
    let mut source = Unpacked::of(file, most)?;
    let mut command = tar(tree, jail, most);
    let failed = || Error::doing("tar does not run");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed())?;
    let said = child.stderr.take();
    let said = std::thread::spawn(move || words(said));
    let members = Arc::new(AtomicU64::new(0));
    let (listed, counter) = (child.stdout.take(), members.clone());
    let listed = std::thread::spawn(move || count(listed, &counter));
    let fed = feed(&mut source, child.stdin.take(), most, &members);
    if fed.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed())?;
    let _ = listed.join();
    let output = child::Output { status, stdout: String::new(), stderr: said.join().unwrap_or_default() };
    fed?;
    // It may have taken the last of them after we had given it the last byte.
    within(&members, most)?;
    // What tar says of a stream that ends too early is not the reason.
    source.end()?;
    match status.code() {
        // As a shell says it.
        Some(code) if code == 128 + nix::sys::signal::Signal::SIGXFSZ as i32 => Err(too_large(most)),
        _ if !status.success() => Err(child::failure(&command, &output)),
        _ => Ok(()),
    }
}

fn too_large(most: Most) -> Error {
    Error::Refused(format!("the tarball unfolds to more than {} bytes, which are allowed (--most)", most.bytes))
}

fn within(members: &AtomicU64, most: Most) -> Result<()> {
    match members.load(Ordering::Relaxed) > most.members {
        true => Err(Error::Refused(format!("the tarball has more than {} files, which are allowed", most.members))),
        false => Ok(()),
    }
}

fn cpu_s(most: Most) -> u64 {
    CPU_S + most.bytes / BYTES_PER_CPU_S
}

fn tar(tree: &Path, jail: &Path, most: Most) -> Command {
    let mut command = Command::new("prlimit");
    command.args(["--core=0".to_owned(), format!("--as={MEMORY_BYTES}"), format!("--cpu={}", cpu_s(most))]);
    command.arg(format!("--fsize={}", most.bytes)).args(["setpriv", "--pdeathsig", "KILL", "--"]);
    // It sees no process of the machine, and all that it starts ends with it.
    command.args(["unshare", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child", "sh", "-c", JAIL]);
    command.args(["jail".as_ref(), tree.as_os_str(), jail.as_os_str(), "--".as_ref()]);
    command.args(["setpriv", "--no-new-privs", "--inh-caps=-all", CAPABILITIES, "--", "tar"]);
    command.args(["--numeric-owner", "-xpvf", "-", "-C", "/tree"]).args(ATTRIBUTES);
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    command.env_clear().env("PATH", path).env("LC_ALL", "C").current_dir("/");
    command
}

/// Counts what is made: tar writes a line for each member, with what would end a line escaped. A folder that a name
/// implies has no line of its own: of each name, what the one before does not share is counted.
fn count(from: Option<impl Read>, made: &AtomicU64) {
    let Some(from) = from else { return };
    let mut lines = BufReader::with_capacity(64 << 10, from);
    let (mut before, mut line) = (Vec::new(), Vec::new());
    while let Ok(1..) = lines.by_ref().take(NAME_BYTES).read_until(b'\n', &mut line) {
        made.fetch_add(new_parts(&before, &line), Ordering::Relaxed);
        (before, line) = (line, before);
        line.clear();
    }
}

/// The parts of a name that the one before does not share; at least one.
fn new_parts(before: &[u8], name: &[u8]) -> u64 {
    let parts = |name: &[u8]| name.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).count();
    let shared = before.split(|byte| *byte == b'/').zip(name.split(|byte| *byte == b'/'));
    let shared = shared.take_while(|(a, b)| a == b).filter(|(part, _)| !part.is_empty()).count();
    (parts(name) - shared).max(1) as u64
}

/// Hands the bytes on until they end, or tar takes no more of them.
fn feed(source: &mut Unpacked, into: Option<ChildStdin>, most: Most, members: &AtomicU64) -> Result<()> {
    let Some(mut into) = into else { return Ok(()) };
    let (mut buffer, mut total) = (vec![0; PIECE], 0);
    loop {
        let length = source.read(&mut buffer).map_err(Error::doing("reading the tarball"))?;
        if total == 0 && packer(&buffer[..length]).is_some() {
            return Err(Error::Refused("the tarball is packed twice: unpack it once".to_owned()));
        }
        total += length as u64;
        if total > most.bytes {
            return Err(too_large(most));
        }
        within(members, most)?;
        // tar has come to its end, or has failed, which its status tells.
        if length == 0 || into.write_all(&buffer[..length]).is_err() {
            return Ok(());
        }
    }
}

fn packer(head: &[u8]) -> Option<(&'static str, &'static [&'static str])> {
    PACKERS.iter().find(|(_, mark, _)| head.starts_with(mark)).map(|(program, _, words)| (*program, *words))
}

/// The bytes of the tarball itself.
enum Unpacked {
    Plain(File),
    By { program: Command, child: Child },
}

impl Unpacked {
    fn of(mut file: File, most: Most) -> Result<Unpacked> {
        let failed = || Error::doing("reading the tarball");
        let mut head = Vec::new();
        Read::by_ref(&mut file).take(8).read_to_end(&mut head).map_err(failed())?;
        io::Seek::rewind(&mut file).map_err(failed())?;
        let Some((program, arguments)) = packer(&head) else { return Ok(Unpacked::Plain(file)) };
        let mut command = limited_to(program, 0, Some(cpu_s(most)));
        command.args(arguments).stdin(file).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(Error::doing(format!("{program} does not run")))?;
        Ok(Unpacked::By { program: command, child })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Unpacked::Plain(file) => file.read(buffer),
            Unpacked::By { child, .. } => child.stdout.as_mut().map_or(Ok(0), |out| out.read(buffer)),
        }
    }

    /// Whether the packed bytes were sound, as far as they were wanted.
    fn end(mut self) -> Result<()> {
        let Unpacked::By { program, child } = &mut self else { return Ok(()) };
        // What follows the end of the tarball is not unpacked, and nobody has to take it.
        let rest = child.stdout.take().map(|mut out| out.read(&mut [0])).transpose();
        let whole = matches!(rest, Ok(None | Some(0)));
        let status = child.wait().map_err(Error::doing("unpacking"))?;
        let stderr = words(child.stderr.take());
        match whole && !status.success() {
            true => Err(child::failure(program, &child::Output { status, stdout: String::new(), stderr })),
            false => Ok(()),
        }
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if let Unpacked::By { child, .. } = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
