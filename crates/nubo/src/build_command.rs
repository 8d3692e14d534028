//! `nubo image build`: images from recipes. Exits as [`workshop_command`](crate::workshop_command) says.

use crate::settings::Settings;
use crate::up;
use crate::workshop_command::{exit, tell};
use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;
use workshop::Show;
use workshop::build::{self, Built, Disk, Distribution, Firmware};

#[derive(clap::Subcommand)]
pub enum Recipe {
    /// A Linux of under 25 MiB, from the distribution's packages; needs no root
    Tiny {
        /// Where the qcow2 goes (default: tiny.qcow2 in the state)
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// A Debian with cloud-init, by mmdebstrap; needs root
    Debian(SystemOptions),
    /// An Ubuntu with cloud-init, by mmdebstrap; needs root, and Ubuntu's keys (package ubuntu-keyring, or --keyring)
    Ubuntu(SystemOptions),
    /// A system in a tarball that has in it what boots it; needs root
    Tarball {
        file: PathBuf,
        /// Refuse what unfolds to more (default: --size, or 64G)
        #[arg(long, value_name = "SIZE")]
        most: Option<String>,
        #[arg(long)]
        output: PathBuf,
        #[command(flatten)]
        disk: DiskOptions,
    },
}

#[derive(clap::Args)]
pub struct SystemOptions {
    /// Its code name (default: bookworm, noble)
    #[arg(long)]
    release: Option<String>,
    /// http(s)://… or file:///… (default: what this machine's apt has of that release, else the distribution's own)
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Build from a folder of packages, such as /var/cache/apt/archives, and no mirror; nothing signs it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["mirror", "keyring"])]
    cache: Option<PathBuf>,
    /// Keys that sign the mirror (default: the machine's)
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// One more package; may be repeated
    #[arg(long, value_name = "PACKAGE")]
    include: Vec<String>,
    /// Default: debian-RELEASE.FORMAT or ubuntu-RELEASE.FORMAT in this folder
    #[arg(long)]
    output: Option<PathBuf>,
    #[command(flatten)]
    disk: DiskOptions,
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
        Recipe::Debian(options) => distribution(Distribution::Debian, options, &mut progress)?,
        Recipe::Ubuntu(options) => distribution(Distribution::Ubuntu, options, &mut progress)?,
        Recipe::Tarball { file, most, output, disk } => {
            let most = most.as_deref().map(workshop::parse_size).transpose()?;
            (disk.json, build::tarball(&file, most, &on(output, disk)?, &mut progress)?)
        }
    };
    let line =
        format!("{}: {}, {} bytes, a disk of {}", built.output, built.format, built.size_bytes, built.virtual_size);
    tell(json, &built, &line)
}

fn distribution(
    distribution: Distribution,
    options: SystemOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<(bool, Built)> {
    let SystemOptions { release, mirror, cache, keyring, include, output, disk } = options;
    let release = release.unwrap_or_else(|| distribution.default_release().to_owned());
    let named = || PathBuf::from(format!("{}-{release}.{}", distribution.id(), disk.format));
    let output = output.unwrap_or_else(named);
    let recipe = build::Recipe { distribution, release, mirror, cache, keyring, include };
    Ok((disk.json, build::distribution(&recipe, &on(output, disk)?, progress)?))
}

fn on(output: PathBuf, options: DiskOptions) -> Result<Disk> {
    let size_bytes = options.size.as_deref().map(workshop::parse_size).transpose()?;
    let firmware = options.firmware.map(Firmware::from);
    let DiskOptions { format, compress, force, .. } = options;
    Ok(Disk { output, format, size_bytes, firmware, compress, force, show: Show::Progress })
}
