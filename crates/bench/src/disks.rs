//! What a disk's format costs: the same data as raw, as qcow2, and in a qcow2 below an empty overlay.
//!
//! Each is opened in the words in which the agent opens disks, through the page cache as it does, and past it. fio runs
//! on the host against QEMU's block layer alone (`qemu-storage-daemon` over a Unix socket), and in a guest, where an
//! emulated processor is most of the cost. All disks of a round follow each other, each over fresh files where it
//! changes them, and a figure's ratio is the middle of its ratios to raw in the same round.

use crate::guest::{Job, Pair, figures};
use crate::{Row, median};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);
const NODE: &str = "disk";
/// The disk: all of it is data. Its first half is written at random, its second half in order.
const DISK_MIB: u64 = 512;

/// What is measured on each disk, in this order: an overlay is empty when it is read, and each half is written for the
/// first time before it is written again.
const JOBS: [Job; 6] = [
    Job { what: "1 MiB reads", words: "--rw=read --bs=1M --iodepth=4 --time_based --runtime=2 --size=512M", column: 6 },
    Job {
        what: "4 KiB random reads",
        words: "--rw=randread --bs=4k --iodepth=16 --time_based --runtime=2 --size=512M",
        column: 6,
    },
    Job {
        what: "4 KiB random writes, the first",
        words: "--rw=randwrite --bs=4k --iodepth=16 --size=256M --io_size=16M",
        column: 47,
    },
    Job {
        what: "1 MiB writes, the first",
        words: "--rw=write --bs=1M --iodepth=4 --offset=256M --size=256M",
        column: 47,
    },
    Job {
        what: "4 KiB random writes, again",
        words: "--rw=randwrite --bs=4k --iodepth=16 --offset=256M --time_based --runtime=2 --size=256M",
        column: 47,
    },
    Job {
        what: "1 MiB writes, again",
        words: "--rw=write --bs=1M --iodepth=4 --offset=256M --time_based --runtime=2 --size=256M",
        column: 47,
    },
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Raw,
    Qcow2,
    /// An empty overlay over a sealed base.
    Overlay,
}

/// A way to open a disk: past the page cache or through it, its base likewise.
#[derive(Clone, Copy)]
struct Setup {
    kind: Kind,
    direct: bool,
    base_direct: bool,
}

/// The first of each cache mode is what the others are compared with.
const SETUPS: [Setup; 7] = [
    Setup { kind: Kind::Raw, direct: false, base_direct: false },
    Setup { kind: Kind::Qcow2, direct: false, base_direct: false },
    Setup { kind: Kind::Overlay, direct: false, base_direct: false },
    Setup { kind: Kind::Raw, direct: true, base_direct: true },
    Setup { kind: Kind::Qcow2, direct: true, base_direct: true },
    Setup { kind: Kind::Overlay, direct: true, base_direct: true },
    Setup { kind: Kind::Overlay, direct: true, base_direct: false },
];

impl Setup {
    fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Raw => "raw",
            Kind::Qcow2 => "qcow2",
            Kind::Overlay if self.direct && !self.base_direct => "qcow2 over a base that is read through the cache",
            Kind::Overlay => "qcow2 over a base",
        };
        format!("{kind}, {} the page cache", if self.direct { "past" } else { "through" })
    }

    fn is_reference(&self) -> bool {
        self.kind == Kind::Raw
    }
}

/// The files.
struct Disks(PathBuf);

impl Drop for Disks {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(command: &mut Command) -> Result<Vec<u8>> {
    let out = command.output().with_context(|| format!("{command:?}"))?;
    if !out.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(out.stdout)
}

impl Disks {
    /// Data without a zero that a format could leave out.
    fn make(parent: &Path) -> Result<Disks> {
        let disks = Disks(parent.join(format!("nubo-bench-disks-{}", std::process::id())));
        std::fs::create_dir_all(&disks.0)?;
        let mut random = std::io::Read::take(std::fs::File::open("/dev/urandom")?, DISK_MIB << 20);
        let mut raw = std::fs::File::create(disks.0.join("raw"))?;
        std::io::copy(&mut random, &mut raw)?;
        raw.sync_all()?;
        for name in ["qcow2", "base"] {
            run(Command::new("qemu-img")
                .args(["convert", "-f", "raw", "-O", "qcow2", "raw", name])
                .current_dir(&disks.0))?;
        }
        Ok(disks)
    }

    /// The node as the agent describes it, over a new overlay where it has one.
    fn node(&self, setup: Setup) -> Result<Value> {
        let file = |name: &str, read_only: bool, direct: bool| {
            let mut file = json!({"driver": "file", "filename": self.0.join(name), "read-only": read_only,
                "auto-read-only": false, "cache": {"direct": direct}});
            if !read_only {
                file["discard"] = json!("unmap");
            }
            file
        };
        let node = |driver: &str, name: &str| {
            json!({"driver": driver, "node-name": NODE, "read-only": false, "discard": "unmap",
                "cache": {"direct": setup.direct}, "file": file(name, false, setup.direct)})
        };
        Ok(match setup.kind {
            Kind::Raw => node("raw", "raw"),
            Kind::Qcow2 => {
                let mut node = node("qcow2", "qcow2");
                node["backing"] = Value::Null;
                node
            }
            Kind::Overlay => {
                let path = self.0.join("overlay");
                let _ = std::fs::remove_file(&path);
                let base = self.0.join("base");
                crate::by_hand::make_disk(&path, Some(&base), &format!("{DISK_MIB}M"))?;
                let mut node = node("qcow2", "overlay");
                node["backing"] = json!({"driver": "qcow2", "read-only": true, "backing": null,
                    "cache": {"direct": setup.base_direct}, "file": file("base", true, setup.base_direct)});
                node
            }
        })
    }
}

/// A daemon that serves one disk over a Unix socket. It ends when this is dropped.
struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Daemon {
    fn start(disks: &Disks, setup: Setup) -> Result<Daemon> {
        let socket = disks.0.join("nbd.sock");
        let server = format!("addr.type=unix,addr.path={}", socket.display());
        let export = format!("type=nbd,id=export,node-name={NODE},name={NODE},writable=on");
        let child = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &disks.node(setup)?.to_string()])
            .args(["--nbd-server", &server, "--export", &export])
            .stdin(Stdio::null())
            // It complains of each client that goes.
            .stderr(std::fs::File::create(disks.0.join("daemon.log"))?)
            .spawn()
            .context("qemu-storage-daemon")?;
        let daemon = Daemon { child, socket };
        let until = Instant::now() + PATIENCE;
        // Bound before it listens: a connection tells.
        while std::os::unix::net::UnixStream::connect(&daemon.socket).is_err() {
            if Instant::now() > until {
                let said = std::fs::read_to_string(disks.0.join("daemon.log")).unwrap_or_default();
                bail!("qemu-storage-daemon does not serve {}: {said}", setup.name());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(daemon)
    }

    /// MiB a second of each job.
    fn measure(&self) -> Result<Vec<f64>> {
        let uri = format!("--uri=nbd+unix:///{NODE}?socket={}", self.socket.display());
        let each = JOBS.iter().map(|job| {
            let words = job.words.split_whitespace();
            let said = run(Command::new("fio")
                .args(["--name=job", "--ioengine=nbd", &uri, "--output-format=terse", "--terse-version=3"])
                .args(words))?;
            let said = String::from_utf8(said)?;
            job.figure(said.trim().lines().last().unwrap_or_default())
        });
        each.collect()
    }
}

/// The figures of each setup and job, a round after the other.
type Figures = Vec<Vec<Vec<f64>>>;

fn rounds(mut measure: impl FnMut(Setup) -> Result<Vec<f64>>) -> Result<Figures> {
    let mut all: Figures = vec![vec![Vec::new(); JOBS.len()]; SETUPS.len()];
    // The first round reads what was just written, and is not counted. Each round begins with another setup.
    for round in 0..=ROUNDS {
        for turn in 0..SETUPS.len() {
            let at = (round + turn) % SETUPS.len();
            // What the one before wrote into the page cache is not written back at this one's cost.
            run(&mut Command::new("sync"))?;
            let figures = measure(SETUPS[at]).with_context(|| SETUPS[at].name())?;
            if round > 0 {
                all[at].iter_mut().zip(figures).for_each(|(all, figure)| all.push(figure));
            }
        }
    }
    Ok(all)
}

fn rows(place: &str, all: &Figures) -> Vec<Row> {
    let mut rows = Vec::new();
    for (at, setup) in SETUPS.iter().enumerate().filter(|(_, setup)| !setup.is_reference()) {
        let is_raw = |it: &&(usize, &Setup)| it.1.is_reference() && it.1.direct == setup.direct;
        let Some((raw, _)) = SETUPS.iter().enumerate().collect::<Vec<_>>().iter().find(is_raw).copied() else {
            continue;
        };
        for (job, said) in JOBS.iter().enumerate() {
            let (ours, theirs) = (&all[at][job], &all[raw][job]);
            let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
            rows.push(Row {
                what: format!("{place}, {}: {}", setup.name(), said.what),
                measured: format!("{:.0} MiB/s", median(ours.clone())),
                reference: format!("raw {:.0} MiB/s", median(theirs.clone())),
                ratio: median(ratios),
                bound: 0.9,
                more_is_better: true,
            });
        }
    }
    rows
}

/// On the host, without a guest.
pub fn on_the_host(folder: &Path) -> Result<Vec<Row>> {
    let disks = Disks::make(folder)?;
    let all = rounds(|setup| Daemon::start(&disks, setup)?.measure())?;
    Ok(rows("on the host", &all))
}

/// In a guest of this cloud's command line, started by hand.
pub async fn in_a_guest(state: &Path, url: &str, clouds: &str) -> Result<Vec<Row>> {
    let disks = Disks::make(state)?;
    let mut pair = Pair::start(state, url, clouds, &JOBS, DISK_MIB).await?;
    let kvm = pair.hand.call("query-kvm", json!({}))?["enabled"] == true;
    let all = rounds(|setup| {
        pair.theirs.skip();
        pair.hand.call("blockdev-add", disks.node(setup)?)?;
        let device = json!({"driver": "virtio-blk-pci", "id": "disk-by-hand", "drive": NODE, "bus": "slot5"});
        pair.hand.call("device_add", device)?;
        let figures = figures(&pair.theirs.wait("bench: over")?, &JOBS)?;
        pair.hand.take_out("disk-by-hand", NODE)?;
        Ok(figures)
    })?;
    let place = if kvm { "in a guest (KVM)" } else { "in a guest (TCG)" };
    pair.end().await?;
    Ok(rows(place, &all))
}
