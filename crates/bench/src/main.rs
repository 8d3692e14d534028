//! Measures nubo from outside and prints ratios that were taken in one run: the machines are shared, so an absolute
//! figure says little. `cargo xtask bench` builds the release program and runs this.
//!
//! Each figure has its reference measured in turns with it (A B A B …), and the median of each is quoted.

mod by_hand;
mod disks;
mod guest;
mod identity;
mod images;
mod keystone;
mod load;
mod real;
mod simulated;
mod volumes;

use anyhow::Result;

/// One line of the table.
pub struct Row {
    pub what: String,
    pub measured: String,
    pub reference: String,
    pub ratio: f64,
    /// The bound, and whether a ratio above it is good.
    pub bound: f64,
    pub more_is_better: bool,
}

impl Row {
    fn holds(&self) -> bool {
        if self.more_is_better { self.ratio >= self.bound } else { self.ratio <= self.bound }
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if arguments.get(1).is_some_and(|word| word == "bare") {
        return runtime.block_on(load::serve_bare(arguments.get(2).map(String::as_str)));
    }
    let nubo = std::path::PathBuf::from(std::env::var("NUBO_BIN").unwrap_or_else(|_| "target/release/nubo".into()));
    println!("| what | measured | reference | ratio | bound | holds |\n|---|---|---|---|---|---|");
    // The disks take half an hour: only where they are asked for.
    let wanted = |name: &str| arguments.get(1).map_or(name != "disks", |word| word == name);
    if wanted("simulated") || wanted("volumes") {
        show(runtime.block_on(simulated::measure(&nubo, wanted("simulated"), wanted("volumes")))?);
    }
    if wanted("identity") {
        show(runtime.block_on(identity::measure(&nubo))?);
    }
    if wanted("images") {
        show(runtime.block_on(images::measure(&nubo))?);
    }
    if wanted("disks") {
        let folder = std::env::var_os("NUBO_STATE").map_or_else(std::env::temp_dir, Into::into);
        show(disks::on_the_host(&folder)?);
    }
    if wanted("disks") || wanted("real") || wanted("volumes") || wanted("guest") {
        show(runtime.block_on(real::measure(wanted))?);
    }
    Ok(())
}

/// Each part as soon as it is measured: a later one may fail.
fn show(rows: Vec<Row>) {
    for row in &rows {
        let sign = if row.more_is_better { "≥" } else { "≤" };
        let holds = if row.holds() { "yes" } else { "NO" };
        println!(
            "| {} | {} | {} | {:.2} | {sign} {} | {holds} |",
            row.what, row.measured, row.reference, row.ratio, row.bound
        );
    }
}

/// The middle of a list of figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
