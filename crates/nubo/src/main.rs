//! The program: one binary for every part of the cloud.

mod agent_command;
mod build_command;
mod client;
mod control_command;
mod demo;
mod explain;
mod fsck;
mod inspect;
mod keys;
mod keystone;
mod lock;
mod netns;
mod process;
mod policy_command;
mod progress;
mod pull_command;
mod server_command;
mod settings;
mod setup;
mod simulated;
mod status;
mod stop;
mod supervise;

mod tls;
mod trash;
mod units;
mod up;
mod workshop_command;

use anyhow::Result;
use clap::{Parser, Subcommand};
use settings::{Flags, Settings};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// nubo: a private cloud in one program, with the OpenStack API.
#[derive(Parser)]
#[command(name = "nubo", version)]
struct Arguments {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set up and start the cloud with its demo; with --simulated-hosts a whole cloud in the foreground, without root
    Up {
        /// Simulate this many hosts: guests become ACTIVE, nothing boots
        #[arg(long)]
        simulated_hosts: Option<u32>,
    },
    /// Stop the cloud; guests keep running
    Down {
        /// `stop`: shut the guests down, too
        #[arg(long, value_parser = ["keep", "stop"], default_value = "keep")]
        guests: String,
    },
    /// Remove everything that the cloud made, and its state
    Purge,
    /// Every part, its version, healthy or why not
    Status {
        #[arg(long)]
        json: bool,
    },
    /// Why an object is as it is, what it waits for, and why it is where it is
    Explain {
        /// `server`, `port`, `network`, `router`, `floatingip`, `image` or `host`
        kind: String,
        id: String,
        #[arg(long)]
        json: bool,
    },
    /// Compare the store with this machine and list every disagreement. Exit 0: none, 1: some, 2: could not look
    Fsck {
        #[command(flatten)]
        options: fsck::Options,
    },
    /// What was deleted and can still come back
    Trash {
        #[command(subcommand)]
        command: trash::TrashCommand,
    },
    /// Take requests back: what they deleted comes back, what they changed goes back
    Undo {
        /// Ids of requests (header X-Openstack-Request-Id), in the order in which they were made
        #[arg(required = true)]
        requests: Vec<String>,
        /// Undo the rest when something collides
        #[arg(long)]
        partial: bool,
        /// Only say what would come back, and what collides
        #[arg(long)]
        dry_run: bool,
        #[arg(long)]
        json: bool,
    },
    /// What no command of OpenStack does with a server
    Server {
        #[command(subcommand)]
        command: server_command::ServerCommand,
    },
    /// What an existing Keystone knows
    Keystone {
        #[command(subcommand)]
        command: keystone::KeystoneCommand,
    },
    /// Who may do what
    Policy {
        #[command(subcommand)]
        command: policy_command::PolicyCommand,
    },
    /// The keys that seal tokens
    Keys {
        #[command(subcommand)]
        command: keys::KeysCommand,
    },
    /// Images of nubo's own
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Serve the APIs (started by the supervisor)
    Control,
    /// Run guests and networks of this host (started by the supervisor)
    Agent,
    /// Serve DHCP and metadata (started by the agent)
    Netd {
        #[arg(long)]
        uid: u32,
        #[arg(long)]
        gid: u32,
    },
    /// Keep control and agent running where systemd does not
    Supervise,
}

#[derive(Subcommand)]
enum ImageCommand {
    /// Build a bootable image
    Build {
        #[command(subcommand)]
        recipe: build_command::Recipe,
    },
    /// What a disk image really is, and whether it would be accepted
    Inspect(inspect::Options),
    #[command(flatten)]
    Work(workshop_command::Work),
    /// Get an image from a repository or a site of cloud images
    Pull(pull_command::Options),
    /// Folders of images with an index that others read, too
    Repository {
        #[command(subcommand)]
        command: pull_command::RepositoryCommand,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("nubo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    if let Command::Netd { uid, gid } = arguments.command {
        log();
        let code = agent::netd::main(agent::netd::Options { uid, gid });
        return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
    }
    let settings = Settings::load(&arguments.flags)?;
    rustls::crypto::ring::default_provider().install_default().ok();
    match arguments.command {
        Command::Up { simulated_hosts: Some(count) } => {
            log();
            simulated::main(
                &settings,
                count,
                std::env::var_os("NUBO_STATE").is_some() || arguments.flags.state.is_some(),
            )?;
        }
        Command::Up { simulated_hosts: None } => up::main(&settings)?,
        Command::Down { guests } => stop::down(&settings, guests == "stop")?,
        Command::Purge => stop::purge(&settings)?,
        Command::Status { json } => return status::main(&settings, json),
        Command::Explain { kind, id, json } => explain::main(&settings, &kind, &id, json)?,
        Command::Fsck { options } => return fsck::main(&settings, options),
        Command::Trash { command } => return trash::trash(&settings, command),
        Command::Undo { requests, partial, dry_run, json } => {
            return trash::undo(&settings, trash::Undo { requests, partial, dry_run, json });
        }
        Command::Server { command } => return server_command::main(&settings, command),
        Command::Policy { command } => return policy_command::main(&settings, command),
        Command::Keys { command } => return keys::main(&settings, command),
        Command::Keystone { command } => return keystone::main(&settings, command),
        Command::Image { command: ImageCommand::Build { recipe } } => {
            return Ok(build_command::main(&settings, recipe));
        }
        Command::Image { command: ImageCommand::Inspect(options) } => return inspect::main(&options),
        Command::Image { command: ImageCommand::Work(work) } => return Ok(workshop_command::main(work)),
        Command::Image { command: ImageCommand::Pull(options) } => return Ok(pull_command::pull(options)),
        Command::Image { command: ImageCommand::Repository { command } } => {
            return Ok(pull_command::repository(command));
        }
        Command::Control => {
            log();
            control_command::main(&settings)?;
        }
        Command::Agent => {
            log();
            agent_command::main(&settings)?;
        }
        Command::Netd { .. } => {}
        Command::Supervise => supervise::main(&settings)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the tiny image, saying each step.
pub fn build_tiny(output: &std::path::Path) -> Result<()> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(".".as_ref());
    let options = tiny::BuildOptions { output: output.to_owned(), work: folder.join("tiny-build") };
    tiny::build(options, &mut |step| eprintln!("image tiny: {step}"))
}

/// Logs to standard error. `NUBO_LOG` filters as in `RUST_LOG`; the default shows one line a request.
fn log() {
    let filter = std::env::var("NUBO_LOG").unwrap_or_else(|_| "info".into());
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|_| "info".into());
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    format.with_target(true).init();
}
