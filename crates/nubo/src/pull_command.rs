//! `nubo image pull` and `nubo image repository`: exits as [`workshop_command`](crate::workshop_command) says.

use crate::workshop_command::{exit, tell};
use anyhow::{Context, Result};
use http_body_util::BodyExt;
use image::web::{Client, Rules, Web};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use workshop::Error;
use workshop::repository::{self, Fetch, Listing, Pull};

/// A server that sends nothing for so long has given up.
const IDLE: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub struct Options {
    /// As the index or the list of checksums has it; or debian-11 to -13, ubuntu-22.04, ubuntu-24.04
    name: String,
    /// A folder with an index (virt-builder's format) or with SHA512SUMS or SHA256SUMS: http(s)://… or a path
    #[arg(long, value_name = "URL|DIR")]
    from: Option<String>,
    /// Default: NAME.FORMAT in this folder
    #[arg(long)]
    output: Option<PathBuf>,
    /// GnuPG keys: one of them must have signed the index or the list
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    #[arg(long, default_value = "x86_64")]
    arch: String,
    /// Most bytes that are fetched, and that come out of them
    #[arg(long, default_value = "64G")]
    most: String,
    /// Certificates to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Replace the output
    #[arg(long)]
    force: bool,
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
pub enum RepositoryCommand {
    /// Write the index of a folder with qcow2 and raw images, packed by xz or not
    Index {
        folder: PathBuf,
        /// Sign it (index.asc) with this key of your GnuPG
        #[arg(long, value_name = "KEY")]
        sign: Option<String>,
        /// Of images that are new
        #[arg(long, default_value = "x86_64")]
        arch: String,
        #[arg(long)]
        json: bool,
    },
}

pub fn pull(options: Options) -> ExitCode {
    exit(run_pull(options))
}

fn run_pull(options: Options) -> Result<bool> {
    let what = Pull {
        name: options.name,
        from: options.from,
        output: options.output,
        keyring: options.keyring,
        arch: options.arch,
        most_bytes: workshop::parse_size(&options.most)?,
        force: options.force,
    };
    let pulled = repository::pull(&what, &mut Network::new(options.ca_file)?)?;
    let signed = if pulled.signed { ", signed" } else { "" };
    let line = format!("{}: {}, a disk of {} bytes{signed}", pulled.output, pulled.format, pulled.virtual_size);
    tell(options.json, &pulled, &line)
}

pub fn repository(command: RepositoryCommand) -> ExitCode {
    let RepositoryCommand::Index { folder, sign, arch, json } = command;
    let how = Listing { arch, sign, most_bytes: workshop::VIRTUAL_BYTES };
    let listed = repository::index(&folder, &how).map_err(anyhow::Error::from);
    exit(listed.and_then(|listed| {
        let line = format!("{} images, {} of them new or changed", listed.images.len(), listed.changed.len());
        tell(json, &listed, &line)
    }))
}

/// The image service's own client, without its rules for strangers' URLs: who calls this command may connect anywhere.
struct Network {
    runtime: tokio::runtime::Runtime,
    client: Client,
    rules: Rules,
}

impl Network {
    fn new(ca_file: Option<PathBuf>) -> Result<Network> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
        let allowed_networks = vec!["0.0.0.0/0".parse()?, "::/0".parse()?];
        let rules = Rules { allowed_ports: Vec::new(), allowed_networks, ca_file, ..Rules::default() };
        Ok(Network { runtime, client: Client::default(), rules })
    }
}

impl Fetch for Network {
    fn get(&mut self, url: &str, into: &mut dyn Write) -> workshop::Result<bool> {
        let failed = |error: std::io::Error| Error::Io { what: url.to_owned(), source: error };
        self.runtime.block_on(async {
            let fetched = match self.client.get(url, &self.rules).await {
                Ok(fetched) => fetched,
                Err(fault) if fault.kind == base::FaultKind::NotFound => return Ok(false),
                Err(fault) => return Err(Error::Refused(why(&fault))),
            };
            let mut shown = Shown::new(fetched.size_bytes);
            let mut body = fetched.body;
            let mut got = 0u64;
            loop {
                let frame = tokio::time::timeout(IDLE, body.frame()).await;
                let frame = frame.map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?;
                let Some(frame) = frame else { break };
                let frame = frame.map_err(|error| failed(std::io::Error::other(error)))?;
                if let Ok(data) = frame.into_data() {
                    into.write_all(&data).map_err(failed)?;
                    got += data.len() as u64;
                    shown.at(got);
                }
            }
            match fetched.size_bytes {
                Some(size) if size != got => Err(failed(std::io::ErrorKind::UnexpectedEof.into())),
                _ => Ok(true),
            }
        })
    }
}

fn why(fault: &base::Fault) -> String {
    match &fault.source {
        Some(source) => format!("{} ({source})", fault.message),
        None => fault.message.clone(),
    }
}

/// How far it is, in percent, on a terminal.
struct Shown {
    size_bytes: Option<u64>,
    percent: u64,
}

/// What is smaller is there at once.
const SHOWN_BYTES: u64 = 8 << 20;

impl Shown {
    fn new(size_bytes: Option<u64>) -> Shown {
        let size_bytes = size_bytes.filter(|size| *size >= SHOWN_BYTES && std::io::stderr().is_terminal());
        Shown { size_bytes, percent: 0 }
    }

    fn at(&mut self, got: u64) {
        let Some(size) = self.size_bytes else { return };
        let percent = got.saturating_mul(100) / size;
        if percent > self.percent {
            self.percent = percent;
            eprint!("\r{percent} % of {} MiB{}", size >> 20, if percent == 100 { "\n" } else { "" });
        }
    }
}
