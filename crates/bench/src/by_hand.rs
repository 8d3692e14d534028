//! A guest's own command line, started by hand: what nubo's way is compared with.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// A QEMU that nobody but this process knows of, and its monitor. It ends when this is dropped.
pub struct Hand {
    pub folder: PathBuf,
    child: Child,
    lines: BufReader<UnixStream>,
}

/// What stands where the agent passes descriptors.
struct Files<'a> {
    state: &'a Path,
    /// The guest's root disk is an overlay in here.
    folder: &'a Path,
    /// The guest whose config drive is shared.
    guest: String,
    /// A disk of every volume that it has.
    volume: Option<&'a Path>,
}

impl Hand {
    /// Starts the command line of a running guest of this cloud (the first one, where none is named) over an overlay of
    /// the same image. Returns when its monitor answers its first command (it greets earlier, before there is a
    /// machine), with the milliseconds that took. The overlay is made before the time begins.
    pub fn start(state: &Path, guest: Option<&str>, volume: Option<&Path>) -> Result<(Hand, f64)> {
        let folder = std::env::temp_dir().join(format!("nubo-bench-qemu-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        make_disk(&folder.join("disk.qcow2"), Some(&state.join("tiny.qcow2")), "1G")?;
        let words = same_line(state, &folder, guest, volume)?;
        let errors = std::fs::File::create(folder.join("stderr"))?;
        let began = Instant::now();
        let mut child = Command::new("qemu-system-x86_64").args(words).stdin(Stdio::null()).stderr(errors).spawn()?;
        match first_answer(&folder.join("qmp")) {
            Ok(lines) => Ok((Hand { folder, child, lines }, began.elapsed().as_secs_f64() * 1e3)),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                let said = std::fs::read_to_string(folder.join("stderr")).unwrap_or_default();
                Err(error.context(format!("QEMU by hand said: {said}")))
            }
        }
    }

    /// Asks the monitor; events on the way are passed over.
    pub fn call(&mut self, command: &str, arguments: Value) -> Result<Value> {
        writeln!(self.lines.get_mut(), "{}", json!({"execute": command, "arguments": arguments}))?;
        loop {
            let said = next(&mut self.lines)?;
            if let Some(error) = said.get("error") {
                bail!("{command}: {error}");
            }
            if let Some(answer) = said.get("return") {
                return Ok(answer.clone());
            }
        }
    }

    /// Takes a disk out again, and closes it.
    pub fn take_out(&mut self, device: &str, node: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            // The guest may not listen yet.
            let asked = self.call("device_del", json!({"id": device}));
            let there = self.call("qom-list", json!({"path": "/machine/peripheral"}))?;
            let gone = !there.as_array().into_iter().flatten().any(|it| it["name"] == device);
            // The device goes before QEMU has let go of the node.
            if gone && self.call("blockdev-del", json!({"node-name": node})).is_ok() {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("the guest by hand keeps {device}: {asked:?}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Makes a disk with the tool for it.
pub fn make_disk(path: &Path, below: Option<&Path>, size: &str) -> Result<()> {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]);
    if let Some(below) = below {
        command.args(["-F", "qcow2", "-b"]).arg(below);
    }
    match command.arg(path).arg(size).status()?.success() {
        true => Ok(()),
        false => bail!("qemu-img create failed"),
    }
}

fn next(lines: &mut BufReader<UnixStream>) -> Result<Value> {
    let mut line = String::new();
    if lines.read_line(&mut line)? == 0 {
        bail!("QMP ended");
    }
    Ok(serde_json::from_str(&line)?)
}

fn first_answer(socket: &Path) -> Result<BufReader<UnixStream>> {
    let until = Instant::now() + Duration::from_secs(30);
    let stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > until => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_micros(200)),
        }
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream);
    next(&mut lines).context("no greeting")?;
    writeln!(lines.get_mut(), "{{\"execute\": \"qmp_capabilities\"}}")?;
    while next(&mut lines)?.get("return").is_none() {}
    Ok(lines)
}

/// The whole command line of a running guest, with names of files where the agent passes descriptors.
fn same_line(state: &Path, folder: &Path, guest: Option<&str>, volume: Option<&Path>) -> Result<Vec<String>> {
    let setup: Value = serde_json::from_slice(&std::fs::read(state.join("setup.json"))?)?;
    let cloud = setup["cloud_id"].as_str().context("cloud_id")?;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(line) = std::fs::read_to_string(entry.path().join("cmdline")) else { continue };
        let words: Vec<&str> = line.trim_end_matches('\0').split('\0').collect();
        let uuid = words.iter().skip_while(|word| **word != "-uuid").nth(1).copied().unwrap_or_default();
        if !words[0].contains("qemu-system") || !line.contains(cloud) || guest.is_some_and(|guest| guest != uuid) {
            continue;
        }
        let files = Files { state, folder, guest: uuid.to_owned(), volume };
        let mut named = Vec::new();
        let mut words = words.into_iter().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().context("an option without a value");
            match word {
                "-add-fd" => drop(value()?),
                "-name" => named.extend([word.to_owned(), value().map(|_| "guest=bench".to_owned())?]),
                "-chardev" | "-netdev" | "-blockdev" => {
                    named.extend([word.to_owned(), by_name(word, value()?, &files)?]);
                }
                _ => named.push(word.to_owned()),
            }
        }
        return Ok(named);
    }
    bail!("no such guest of cloud {cloud} runs")
}

/// The option's value without descriptors.
fn by_name(option: &str, value: &str, files: &Files<'_>) -> Result<String> {
    if option == "-blockdev" {
        let mut node: Value = serde_json::from_str(value)?;
        match node["node-name"].as_str().unwrap_or_default() {
            "root" => {
                node["file"]["filename"] = json!(files.folder.join("disk.qcow2"));
                node["backing"]["file"]["filename"] = json!(files.state.join("tiny.qcow2"));
            }
            "config" => {
                let drive = files.state.join("hosts/guests").join(&files.guest).join("config.iso");
                node["file"]["filename"] = json!(drive);
            }
            name => {
                let path = files.volume.context("a guest with a volume that is not named")?;
                node = json!({"driver": "raw", "node-name": name, "file": {"driver": "file", "filename": path}});
            }
        }
        return Ok(node.to_string());
    }
    let id = value.split(',').find_map(|part| part.strip_prefix("id=")).context("no id")?;
    let parts = value.split(',').map(|part| match part.split_once('=') {
        Some(("fd", _)) if option == "-netdev" => "ifname=nubo-bench,script=no,downscript=no".to_owned(),
        Some(("fd", _)) => format!("path={}", files.folder.join(id).display()),
        Some(("logfile", _)) => format!("logfile={}", files.folder.join("log").display()),
        _ => part.to_owned(),
    });
    Ok(parts.collect::<Vec<_>>().join(","))
}
