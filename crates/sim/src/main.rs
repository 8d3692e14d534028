//! `sim`: runs histories. See `cargo xtask sim --help`.

use anyhow::{Context, Result, bail};
use sim::scale::Shape;
use sim::tally::Tally;
use sim::{Plan, Template, Verdict, run, shrink, trouble};
use std::collections::BTreeSet;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

const HELP: &str = "cargo xtask sim [--seed S | --seeds A..B] [--steps N] [--hosts H] [--without LIST] [--jobs J]
               [--trace] [--log LEVEL] [--keep-going] [--no-shrink] [--covered]
  --seed S       one history; prints its hash, and with --trace all that happened
  --seeds A..B   many; stops at the first that breaks a rule, unless --keep-going
  --without LIST leaves steps out: 3,7,10-20
  --scale [HOSTS SERVERS] [--together] [--json]
                 measures every kind of call in a cloud of that size; without numbers one of 10 hosts and 200 servers
                 and one of 1,000 and 20,000, and fails where a bound is missed; --together: all in one project
  --covered      fails when a declared fault or an operation never came up, as runs of 300 seeds and more do
";

const SMALL: Shape = Shape { hosts: 10, servers: 200, together: false };
const LARGE: Shape = Shape { hosts: 1000, servers: 20_000, together: false };

/// From so many seeds on, everything declared must have come up.
const COVERED_FROM: u64 = 300;

struct Options {
    seeds: Range<u64>,
    steps: u64,
    hosts: u64,
    without: BTreeSet<u64>,
    jobs: usize,
    trace: bool,
    log: Option<tracing::Level>,
    keep_going: bool,
    shrink: bool,
    covered: bool,
}

fn parse() -> Result<Options> {
    let mut options = Options {
        seeds: 0..1,
        steps: 250,
        hosts: 3,
        without: BTreeSet::new(),
        jobs: std::thread::available_parallelism().map_or(2, |n| n.get()),
        trace: false,
        log: None,
        keep_going: false,
        shrink: true,
        covered: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--seed" => {
                let seed = value()?.parse()?;
                options.seeds = seed..seed + 1;
            }
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").context("--seeds takes A..B")?;
                options.seeds = from.parse()?..to.parse()?;
            }
            "--steps" => options.steps = value()?.parse()?,
            "--hosts" => options.hosts = value()?.parse()?,
            "--jobs" => options.jobs = value()?.parse()?,
            "--without" => options.without = list(&value()?)?,
            "--log" => options.log = Some(value()?.parse()?),
            "--trace" => options.trace = true,
            "--keep-going" => options.keep_going = true,
            "--no-shrink" => options.shrink = false,
            "--covered" => options.covered = true,
            "--help" => {
                print!("{HELP}");
                std::process::exit(0);
            }
            other => bail!("{other} is not understood\n{HELP}"),
        }
    }
    options.covered |= options.seeds.end - options.seeds.start >= COVERED_FROM;
    Ok(options)
}

fn list(text: &str) -> Result<BTreeSet<u64>> {
    let mut steps = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        match part.split_once('-') {
            Some((from, to)) => steps.extend(from.parse::<u64>()?..=to.parse()?),
            None => drop(steps.insert(part.parse()?)),
        }
    }
    Ok(steps)
}

/// The inverse of [`list`].
fn text(steps: &BTreeSet<u64>) -> String {
    let mut parts: Vec<(u64, u64)> = Vec::new();
    for step in steps {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *step => *last = *step,
            _ => parts.push((*step, *step)),
        }
    }
    let part = |(from, to): &(u64, u64)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

fn main() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `--scale`: what it costs to have many. Without numbers the small cloud and the large one are held against each other.
fn scale(args: &[String]) -> Result<()> {
    let (words, numbers): (Vec<&String>, Vec<&String>) = args.iter().partition(|arg| arg.starts_with("--"));
    let has = |word: &str| words.iter().any(|arg| *arg == word);
    if let Some(other) = words.iter().find(|word| !matches!(word.as_str(), "--json" | "--together")) {
        bail!("{other} is not understood\n{HELP}");
    }
    let together = has("--together");
    let (hosts, servers) = match numbers.as_slice() {
        [] => return sim::scale::compare(Shape { together, ..SMALL }, Shape { together, ..LARGE }),
        [hosts, servers] => (hosts.parse()?, servers.parse()?),
        _ => bail!("--scale takes HOSTS and SERVERS, or nothing\n{HELP}"),
    };
    let found = sim::scale::measure(Shape { hosts, servers, together })?;
    if has("--json") {
        println!("{}", serde_json::to_string(&found)?);
    } else {
        sim::scale::print(&found);
    }
    Ok(())
}

fn work() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--scale") {
        return scale(&args[1..]);
    }
    let options = parse()?;
    trouble::listen(options.log);
    let began = Instant::now();
    let template = Template::build().context("the cloud that every history begins with")?;
    let (next, stop) = (AtomicU64::new(options.seeds.start), AtomicBool::new(false));
    let total = Mutex::new(Tally::default());
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let work = || -> Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= options.seeds.end || stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            let plan = Plan { seed, steps: options.steps, hosts: options.hosts, without: options.without.clone() };
            let verdict = run(&template, &plan)?;
            let seeds = {
                let mut total = total.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
                total.add(&verdict.tally);
                total.seeds
            };
            if options.seeds.end - options.seeds.start == 1 {
                single(&options, &verdict);
            } else if seeds.is_multiple_of(100) {
                println!("{seeds} seeds, {:.0} s", began.elapsed().as_secs_f64());
            }
            if verdict.broken.is_some() {
                stop.store(!options.keep_going, Ordering::SeqCst);
                failed.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?.push(seed);
                explain(&options, &template, &plan, verdict)?;
            }
        }
    };
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.jobs).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked"))).collect()
    });
    results.into_iter().collect::<Result<Vec<()>>>()?;
    let total = total.into_inner().unwrap_or_default();
    let failed = failed.into_inner().unwrap_or_default();
    finish(&options, &total, &failed, began)
}

fn single(options: &Options, verdict: &Verdict) {
    if options.trace {
        verdict.lines.iter().for_each(|line| println!("{line}"));
    }
    println!("hash {:016x}", verdict.hash);
}

/// Says what broke, and by how little.
fn explain(options: &Options, template: &Template, plan: &Plan, verdict: Verdict) -> Result<()> {
    let say = |plan: &Plan, verdict: &Verdict| {
        let Some(broken) = &verdict.broken else { return String::new() };
        let without =
            if plan.without.is_empty() { String::new() } else { format!(" --without {}", text(&plan.without)) };
        let at = verdict.step;
        let again =
            format!("cargo xtask sim --seed {} --steps {} --hosts {}{without}", plan.seed, plan.steps, plan.hosts);
        format!("{} (step {at})\n  {}\n  again: {again}", broken.rule, broken.detail)
    };
    println!("FAILED seed {}: {}", plan.seed, say(plan, &verdict));
    if options.shrink && options.seeds.end - options.seeds.start > 1 {
        let (shorter, verdict) = shrink::shrink(template, plan, verdict)?;
        let steps = shorter.steps - shorter.without.len() as u64;
        println!("the shortest history found, {steps} steps of seed {}: {}", plan.seed, say(&shorter, &verdict));
        let lines = &verdict.lines;
        lines[lines.len().saturating_sub(60)..].iter().for_each(|line| println!("  {line}"));
    }
    Ok(())
}

fn finish(options: &Options, total: &Tally, failed: &[u64], began: Instant) -> Result<()> {
    if options.covered {
        print!("{}", total.report());
    }
    println!(
        "{} seeds, {} steps, {} calls, {} faults, {:.0} virtual hours in {:.1} s: {} failed",
        total.seeds,
        total.steps,
        total.calls,
        total.faults,
        total.virtual_s / 3600.0,
        began.elapsed().as_secs_f64(),
        failed.len()
    );
    if !failed.is_empty() {
        bail!("rules broke with the seeds {failed:?}");
    }
    let missing = if options.covered { total.missing() } else { Vec::new() };
    if !missing.is_empty() {
        bail!("not everything came up:\n  {}", missing.join("\n  "));
    }
    Ok(())
}
