//! Programs of others that work on images: limited, without the privileges of who starts them, and gone with us.

use crate::error::{Error, Result};
use std::io::{IsTerminal, Read};
use std::process::{Command, ExitStatus, Stdio};

/// Address space; a conversion takes a tenth of it.
const MEMORY_BYTES: u64 = 4 << 30;
const CPU_S: u64 = 24 * 3600;
const FILES: u32 = 256;
/// What is read of a program's words.
const SAID_BYTES: u64 = 64 << 10;

const SHOWN_CHARS: usize = 1500;

/// Whether a person watches the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Show {
    #[default]
    Nothing,
    /// How far it is, on standard error where that is a terminal.
    Progress,
}

impl Show {
    pub(crate) fn on_terminal(self) -> bool {
        self == Show::Progress && std::io::stderr().is_terminal()
    }
}

pub(crate) struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A command in which a program has limits on memory, time and files (`file_bytes` for each that it writes), can gain
/// no privilege, and, where we are root, keeps of all capabilities the one to open files whoever owns them.
pub(crate) fn limited(program: &str, file_bytes: u64) -> Command {
    limited_to(program, file_bytes, None)
}

/// The same, with so many seconds of processor time.
pub(crate) fn limited_to(program: &str, file_bytes: u64, cpu_s: Option<u64>) -> Command {
    let mut command = Command::new("prlimit");
    let cpu_s = cpu_s.unwrap_or(CPU_S);
    command.args(["--core=0".to_owned(), format!("--as={MEMORY_BYTES}"), format!("--cpu={cpu_s}")]);
    command.args([format!("--nofile={FILES}"), format!("--fsize={file_bytes}"), "--".to_owned()]);
    command.args(["setpriv", "--no-new-privs", "--pdeathsig", "KILL"]);
    if nix::unistd::geteuid().is_root() {
        command.args(["--inh-caps=-all", "--bounding-set=-all,+dac_override"]);
    }
    command.args(["--", program]);
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    command.env_clear().env("PATH", path).env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    command
}

/// Runs it to its end; what it said, whatever its status.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let failed = Error::doing(format!("{} does not run", name(command)));
    let mut child = match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return Err(failed(error)),
    };
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let reader = std::thread::spawn(move || words(err));
    let stdout = words(out);
    let stderr = reader.join().unwrap_or_default();
    let status = child.wait().map_err(failed)?;
    Ok(Output { status, stdout, stderr })
}

/// Runs it to its end, which must be a good one.
pub(crate) fn succeed(command: &mut Command) -> Result<String> {
    let output = run(command)?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(failure(command, &output)),
    }
}

/// As [`succeed`], with `-p` and the program's own progress where a person watches.
pub(crate) fn watched(command: &mut Command, show: Show) -> Result<()> {
    if !show.on_terminal() {
        return succeed(command).map(drop);
    }
    let failed = Error::doing(format!("{} does not run", name(command)));
    let status = command.stdout(std::io::stderr()).stderr(Stdio::inherit()).status().map_err(failed)?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::Tool { program: name(command), ended: ended(status), said: String::new() }),
    }
}

pub(crate) fn failure(command: &Command, output: &Output) -> Error {
    let said = output.stderr.trim();
    let said = said.strip_prefix(&format!("{}: ", name(command))).unwrap_or(said).replace('\n', "; ");
    // What was wrong stands at the end.
    let said = said.char_indices().nth_back(SHOWN_CHARS).map_or(&said[..], |(at, _)| &said[at..]).to_owned();
    Error::Tool { program: name(command), ended: ended(output.status), said }
}

fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with status {code}"),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    }
}

/// The program behind the wrappers: the word after the last `--` that stands alone.
fn name(command: &Command) -> String {
    let words: Vec<String> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let dashes = words.iter().rposition(|word| word == "--");
    let program = dashes.and_then(|at| words.get(at + 1)).cloned();
    program.unwrap_or_else(|| command.get_program().to_string_lossy().into_owned())
}

/// What comes out of a pipe, as much as is shown; the rest is read, so that nobody waits for us.
pub(crate) fn words(from: Option<impl Read>) -> String {
    let mut kept = Vec::new();
    if let Some(mut from) = from {
        // A pipe that breaks has said what it said; the rest is read so that the program does not wait for us.
        let _ = from.by_ref().take(SAID_BYTES).read_to_end(&mut kept);
        let _ = std::io::copy(&mut from, &mut std::io::sink());
    }
    String::from_utf8_lossy(&kept).into_owned()
}
