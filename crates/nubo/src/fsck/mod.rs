//! `nubo fsck`: every disagreement between the store and this machine, and with `--repair` its end.
//!
//! ```text
//!   control (or the store itself) ──> what shall be ─┐
//!   kernel, processes, files ───────> what is ───────┴─> compare ──> findings ──> plan ──> repair ─┐
//!                     ^                                                                            │
//!                     └──────────────────────────── look again ────────────────────────────────────┘
//! ```
//!
//! A cloud moves while it is looked at: only what two looks have in common is a finding. Nothing is repaired that was
//! not in the plan, and no guest is touched that is as it shall be; what has no owner is moved aside, not thrown away.

mod compare;
mod files;
mod finding;
mod machine;
mod repair;
mod shall;

use crate::client::Client;
use crate::netns;
use crate::process;
use crate::settings::Settings;
use crate::setup::Setup;
use crate::status;
use agent_api::ViewObject;
use anyhow::{Context, Result, bail};
use base::Env;
use control::Offline;
use finding::Finding;
use machine::Machine;
use serde_json::{Value, json};
use shall::Shall;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Between two looks at the same thing: what is on its way has moved on by then.
const PAUSE: Duration = Duration::from_millis(500);
/// Looks that must agree before something on the move is called damage.
const LOOKS: usize = 3;

#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Options {
    #[arg(long)]
    json: bool,
    /// Print a plan, and carry it out after a yes
    #[arg(long)]
    repair: bool,
    /// Do not ask
    #[arg(long, requires = "repair")]
    yes: bool,
    /// Read the store itself: for a cloud that is down
    #[arg(long)]
    offline: bool,
}

pub fn main(settings: &Settings, options: Options) -> Result<ExitCode> {
    let code = match run(settings, options) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            eprintln!("nubo fsck: cannot look: {error:#}");
            2
        }
    };
    Ok(ExitCode::from(code))
}

/// True when everything agrees in the end.
fn run(settings: &Settings, options: Options) -> Result<bool> {
    let mut looker = Looker::new(settings, options.offline)?;
    let found = looker.confirmed()?;
    if !options.repair || found.is_empty() {
        print(&found, options.json);
        return Ok(found.is_empty());
    }
    print_plan(&found, options.json);
    if !found.iter().any(|finding| finding.repair.is_possible()) {
        return Ok(false);
    }
    if !options.yes && !agreed()? {
        println!("nothing was changed");
        return Ok(false);
    }
    let left = repair::carry_out(&mut looker, found, !options.json)?;
    looker.close();
    print(&left, options.json);
    Ok(left.is_empty())
}

fn print(found: &[Finding], as_json: bool) {
    if as_json {
        println!("{}", json!({ "findings": found }));
    } else if found.is_empty() {
        println!("clean: store and machine agree");
    } else {
        found.iter().for_each(|finding| println!("{}", finding.line()));
    }
}

fn print_plan(found: &[Finding], as_json: bool) {
    if as_json {
        println!("{}", json!({ "plan": found }));
        return;
    }
    println!("plan:");
    for finding in found {
        println!("  {}\n    -> {}", finding.line(), finding.repair.plan());
    }
}

/// Asks on the terminal; without one nobody can say yes.
fn agreed() -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("without a terminal, a repair needs --yes");
    }
    print!("do this? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Who says what shall be.
enum Source {
    Control { client: Client, url: String },
    Store(Box<Offline>),
}

/// Looks, as often as is needed.
pub struct Looker<'a> {
    settings: &'a Settings,
    setup: Setup,
    runtime: tokio::runtime::Runtime,
    source: Option<Source>,
    digests: files::Digests,
}

impl<'a> Looker<'a> {
    fn new(settings: &'a Settings, offline: bool) -> Result<Looker<'a>> {
        let setup =
            Setup::load(&settings.state)?.with_context(|| format!("no cloud in {}", settings.state.display()))?;
        if !nix::unistd::geteuid().is_root() {
            bail!("processes and namespaces of other accounts are only seen by root: sudo nubo fsck");
        }
        if let Some(name) = settings.netns.as_deref().filter(|name| netns::exists(name)) {
            netns::enter(name)?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut looker = Looker { settings, setup, runtime, source: None, digests: files::Digests::new() };
        if offline {
            looker.open_store()?;
        }
        Ok(looker)
    }

    /// Opens the store itself. Two writers would end in each other's way, so control must not run, nor come back.
    fn open_store(&mut self) -> Result<()> {
        for part in ["supervise", "control"] {
            if let Some(found) = process::all(part, &self.settings.state).first() {
                bail!("the cloud is up (nubo {part} is process {}): look without --offline, or nubo down", found.pid);
            }
        }
        let directory = self.settings.state.join("control");
        let bootstrap = control::Bootstrap {
            cloud_id: self.setup.cloud_id.clone(),
            admin_password: String::new(),
            demo_password: String::new(),
            secret_keys: self.setup.secret_keys.clone(),
        };
        if self.settings.store == "sqlite" && !directory.join("nubo.db").exists() {
            bail!("there is no store in {}: is it on PostgreSQL, which NUBO_STORE does not say?", directory.display());
        }
        let options = crate::control_command::options(self.settings, String::new(), bootstrap)?;
        let opened = self.runtime.block_on(Offline::open(options, Env::system()));
        self.source = Some(Source::Store(Box::new(opened.map_err(|fault| anyhow::anyhow!(fault.chain()))?)));
        Ok(())
    }

    /// Leaves the files of the store to the account that they belong to.
    fn close(&mut self) {
        if let Some(Source::Store(store)) = self.source.take() {
            drop(store);
            if let Err(error) = repair::give_back(self.settings, &self.setup) {
                eprintln!("nubo fsck: the store's files may belong to root now: {error:#}");
            }
        }
    }

    pub fn is_offline(&self) -> bool {
        matches!(self.source, Some(Source::Store(_)))
    }

    /// What control says, or the store: the audit and the owners.
    fn ask(&mut self) -> Result<(Value, Value)> {
        if self.source.is_none() {
            let (client, url) = self.runtime.block_on(status::admin(self.settings, &self.setup))?;
            self.source = Some(Source::Control { client, url });
        }
        let answer = match &self.source {
            Some(Source::Store(store)) => self.runtime.block_on(async {
                let audit = store.answer().await.map_err(|fault| anyhow::anyhow!(fault.chain()))?;
                Ok((audit, store.owners().await.unwrap_or_default()))
            }),
            Some(Source::Control { client, url }) => self.runtime.block_on(async {
                let audit = client.get_url(&format!("{url}/nubo/v1/audit")).await?;
                // A damaged document may keep the owners from being named; then the audit says so as well.
                let owners = match &audit["unreadable"] {
                    Value::Null => client.get_url(&format!("{url}/nubo/v1/owners")).await?,
                    _ => Value::Null,
                };
                Ok((audit, owners))
            }),
            None => bail!("nobody to ask"),
        };
        if answer.is_err() && !self.is_offline() {
            // Control may have been started anew meanwhile.
            self.source = None;
        }
        answer
    }

    /// One look at everything.
    pub fn look(&mut self) -> Result<(Vec<Finding>, Machine)> {
        let (audit, owners) = self.ask()?;
        let host = crate::agent_command::host_name();
        let shall = Shall::read(audit, &owners, &host)?;
        let machine = machine::look(self.settings, &self.setup)?;
        let files = files::look(self.settings, &mut self.digests)?;
        let network = match &shall.view {
            Some(view) => self.network(view.clone())?,
            None => Vec::new(),
        };
        let sides = compare::Sides {
            cloud: &self.setup.cloud_id,
            state: self.settings.state.clone(),
            shall: &shall,
            machine: &machine,
            files: &files,
            network: &network,
            offline: self.is_offline(),
        };
        Ok((compare::compare(&sides), machine))
    }

    fn network(&self, view: Vec<ViewObject>) -> Result<Vec<agent::net::Difference>> {
        let underlay = netlink::Netns::current()?;
        Ok(agent::net::verify(agent::net::Options::new(self.setup.cloud_id.clone(), underlay), view))
    }

    /// What several looks have in common.
    pub fn confirmed(&mut self) -> Result<Vec<Finding>> {
        let mut found = self.look()?.0;
        for _ in 1..LOOKS {
            if found.is_empty() {
                break;
            }
            std::thread::sleep(PAUSE);
            let before = std::mem::replace(&mut found, self.look()?.0);
            // What would mend it may change: a copy that it would be mended with may go.
            found.retain(|finding| before.iter().any(|it| it.says_the_same(finding)));
        }
        Ok(found)
    }
}

impl Drop for Looker<'_> {
    fn drop(&mut self) {
        self.close();
    }
}
