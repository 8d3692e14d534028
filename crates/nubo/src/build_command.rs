//! `nubo image build`: images from recipes. Exits as [`workshop_command`](crate::workshop_command) says.

use crate::settings::Settings;
use crate::up;
use crate::workshop_command::{exit, tell};
use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;
use workshop::Show;
use workshop::build::{self, Debian, Disk, Firmware};

#[derive(clap::Subcommand)]
pub enum Recipe {
    /// A Linux of under 25 MiB, from the distribution's packages; needs no root
    Tiny {
        /// Where the qcow2 goes (default: tiny.qcow2 in the state)
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// A Debian with cloud-init, by mmdebstrap; needs root
    Debian {
        /// Its code name
        #[arg(long, default_value = "bookworm")]
        release: String,
        /// http(s)://… or file:///… (default: what this machine's apt has of that release)
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// Keys that sign the mirror (default: the machine's)
        #[arg(long, value_name = "FILE")]
        keyring: Option<PathBuf>,
        /// One more package; may be repeated
        #[arg(long, value_name = "PACKAGE")]
        include: Vec<String>,
        /// Default: debian-RELEASE.FORMAT in this folder
        #[arg(long)]
        output: Option<PathBuf>,
        #[command(flatten)]
        disk: DiskOptions,
    },
    /// A system in a tarball that has in it what boots it; needs root
    Tarball {
        file: PathBuf,
        #[arg(long)]
        output: PathBuf,
        #[command(flatten)]
        disk: DiskOptions,
    },
}

#[derive(clap::Args)]
pub struct DiskOptions {
    #[arg(long, default_value = "qcow2")]
    format: String,
    /// Of the disk, such as 4G (default: what the system needs and some room)
    #[arg(long)]
    size: Option<String>,
    /// What it boots from (default: both, or what a tarball has loaders for)
    #[arg(long, value_enum)]
    firmware: Option<FirmwareName>,
    /// Pack the clusters of a qcow2
    #[arg(long)]
    compress: bool,
    /// Replace the output
    #[arg(long)]
    force: bool,
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum FirmwareName {
    Bios,
    Uefi,
    Both,
}

impl From<FirmwareName> for Firmware {
    fn from(name: FirmwareName) -> Firmware {
        match name {
            FirmwareName::Bios => Firmware::Bios,
            FirmwareName::Uefi => Firmware::Uefi,
            FirmwareName::Both => Firmware::Both,
        }
    }
}

pub fn main(settings: &Settings, recipe: Recipe) -> ExitCode {
    exit(run(settings, recipe))
}

fn run(settings: &Settings, recipe: Recipe) -> Result<bool> {
    let mut progress = |step: &str| eprintln!("image: {step}");
    let (json, built) = match recipe {
        Recipe::Tiny { output } => {
            crate::build_tiny(&output.unwrap_or_else(|| up::default_image(&settings.state)))?;
            return Ok(true);
        }
        Recipe::Debian { release, mirror, keyring, include, output, disk } => {
            let output = output.unwrap_or_else(|| PathBuf::from(format!("debian-{release}.{}", disk.format)));
            let recipe = Debian { release, mirror, keyring, include };
            (disk.json, build::debian(&recipe, &on(output, disk)?, &mut progress)?)
        }
        Recipe::Tarball { file, output, disk } => {
            (disk.json, build::tarball(&file, &on(output, disk)?, &mut progress)?)
        }
    };
    let line =
        format!("{}: {}, {} bytes, a disk of {}", built.output, built.format, built.size_bytes, built.virtual_size);
    tell(json, &built, &line)
}

fn on(output: PathBuf, options: DiskOptions) -> Result<Disk> {
    let size_bytes = options.size.as_deref().map(workshop::parse_size).transpose()?;
    let firmware = options.firmware.map(Firmware::from);
    let DiskOptions { format, compress, force, .. } = options;
    Ok(Disk { output, format, size_bytes, firmware, compress, force, show: Show::Progress })
}
