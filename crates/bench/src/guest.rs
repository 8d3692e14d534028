//! What a guest has of its volumes: how long it waits for one, and how fast it is.
//!
//! Two guests run the same command line and the same script: one is nubo's, the other is started by hand. The script
//! says on the serial console what happens, and both logs are read alike.

use crate::by_hand::{Hand, make_disk};
use crate::simulated::{self, Session};
use crate::volumes::Volumes;
use crate::{Row, median};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const ATTACHES: usize = 11;
/// The first turn writes the disk for the first time, and is not counted.
const FIO_TURNS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(120);
/// What the kernel says of a disk of 1 GiB that has just come.
const SEEN: &str = "] 2097152 512-byte logical blocks";
const NODE: &str = "by-hand";

/// What is measured, fio's words for it, and where in its terse output the KiB a second stand.
pub struct Job {
    pub what: &'static str,
    pub words: &'static str,
    pub column: usize,
}

impl Job {
    /// MiB a second, of a line of fio's.
    pub fn figure(&self, line: &str) -> Result<f64> {
        let figure = line.trim().split(';').nth(self.column).and_then(|word| word.parse::<f64>().ok());
        Ok(figure.with_context(|| format!("fio said {line}"))? / 1024.0)
    }
}

const JOBS: [Job; 4] = [
    Job { what: "reads of 1 MiB", words: "--rw=read --bs=1M --iodepth=4 --time_based --runtime=2 --size=512M", column: 6 },
    Job {
        what: "writes of 1 MiB",
        words: "--rw=write --bs=1M --iodepth=4 --time_based --runtime=2 --size=512M",
        column: 47,
    },
    Job {
        what: "random reads of 4 KiB",
        words: "--rw=randread --bs=4k --iodepth=16 --time_based --runtime=2 --size=512M",
        column: 6,
    },
    Job {
        what: "random writes of 4 KiB",
        words: "--rw=randwrite --bs=4k --iodepth=16 --time_based --runtime=2 --size=512M",
        column: 47,
    },
];
/// The size of the disk that they run on.
const DISK_MIB: u64 = 2048;

/// Brings fio from the disk that has a tar file behind its first MiB (an image that begins with one is no disk), and runs
/// the jobs once on each disk of the measured size that comes.
const SCRIPT: &str = r#"#!/bin/sh
echo 7 > /proc/sys/kernel/printk
say() { echo "bench: $*" > /dev/console; }
for folder in /sys/block/vd*; do
  disk=/dev/${folder##*/}
  [ "$(dd if=$disk bs=1 skip=1048833 count=5 2>/dev/null)" = ustar ] || continue
  mkdir -p /run/fio && dd if=$disk bs=1048576 skip=1 count=COUNT 2>/dev/null | tar -xf - -C /run/fio
done
job() {
  say "fio $(cd /run/fio && ./ld-linux-x86-64.so.2 --library-path . ./fio --name=job --filename=/dev/$found --direct=1 \
    --ioengine=libaio --output-format=terse --terse-version=3 "$@" 2>&1 | tail -n 1)"
}
(while :; do
  found=
  for folder in /sys/block/vd*; do
    read -r sectors < $folder/size || continue
    if [ "$sectors" = SECTORS ]; then found=${folder##*/}; fi
  done
  # One disk may go and the next one come between two looks: each has a number of its own.
  number=$(cat /sys/block/$found/diskseq 2>/dev/null)
  if [ -n "$found" ] && [ "$number" != "$done" ]; then
    done=$number
    JOBS
    say over
  fi
  sleep 0.2
done) > /dev/null 2>&1 &
say prepared
"#;

/// A console's log, read as it grows.
pub struct Console {
    path: PathBuf,
    at: usize,
}

impl Console {
    fn text(&self) -> String {
        let text = std::fs::read(&self.path).unwrap_or_default();
        String::from_utf8_lossy(text.get(self.at..).unwrap_or_default()).into_owned()
    }

    /// From now on only what is new counts.
    pub fn skip(&mut self) {
        self.at = std::fs::read(&self.path).map_or(0, |text| text.len());
    }

    /// Waits for these words; all that has been said since the last [`Console::skip`].
    pub fn wait(&self, words: &str) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            if text.contains(words) {
                return Ok(text);
            }
            if Instant::now() > until {
                let end: String = text.chars().rev().take(500).collect::<Vec<_>>().into_iter().rev().collect();
                bail!("{} does not say {words:?}; its end: {end}", self.path.display());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

/// Both guests.
pub struct Pair {
    volumes: Volumes,
    server: String,
    ours: Console,
    pub hand: Hand,
    pub theirs: Console,
}

pub async fn measure(state: &Path, url: &str, clouds: &str) -> Result<Vec<Row>> {
    let mut pair = Pair::start(state, url, clouds, &JOBS, DISK_MIB).await?;
    let mut rows = vec![pair.attach().await?];
    rows.extend(pair.throughput(state).await?);
    pair.end().await?;
    Ok(rows)
}

const MIB: u64 = 1 << 20;

/// A disk with fio and all that it is linked with.
fn tools(folder: &Path) -> Result<PathBuf> {
    let found = Command::new("sh").args(["-c", "command -v fio"]).output()?;
    let fio = String::from_utf8(found.stdout)?.trim().to_owned();
    let linked = String::from_utf8(Command::new("ldd").arg(&fio).output()?.stdout)?;
    std::fs::create_dir_all(folder.join("fio"))?;
    let libraries = linked.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain([fio.as_str()]) {
        let name = Path::new(file).file_name().context("a library without a name")?;
        std::fs::copy(file, folder.join("fio").join(name)).with_context(|| file.to_owned())?;
    }
    let tar = folder.join("fio.tar");
    let made = Command::new("tar").arg("-C").arg(folder.join("fio")).arg("-cf").arg(&tar).arg(".").status()?;
    if !made.success() {
        bail!("tar failed");
    }
    let disk = folder.join("fio.raw");
    let mut bytes = vec![0; MIB as usize];
    bytes.extend(std::fs::read(&tar)?);
    bytes.resize(bytes.len().next_multiple_of(MIB as usize), 0);
    std::fs::write(&disk, bytes)?;
    Ok(disk)
}

impl Pair {
    /// Both run, and wait for a disk of `disk_mib` to run the jobs on.
    pub async fn start(state: &Path, url: &str, clouds: &str, jobs: &[Job], disk_mib: u64) -> Result<Pair> {
        let scratch = state.join("bench");
        std::fs::create_dir_all(&scratch)?;
        let disk = tools(&scratch)?;
        let mut admin = Session::login(url, clouds, "nubo").await?;
        let flavor = json!({"flavor": {"name": "bench", "ram": 512, "vcpus": 1, "disk": 1}});
        let flavor = admin.json(Method::POST, "/compute/v2.1/flavors", flavor).await?["flavor"]["id"].clone();
        let mut demo = Session::login(url, clouds, "demo").await?;
        let tools = simulated::image(&mut demo, "fio", std::fs::read(&disk)?).await?;
        let image = demo.json(Method::GET, "/image/v2/images?name=tiny", Value::Null).await?["images"][0]["id"].clone();
        let jobs: String = jobs.iter().map(|job| format!("job {}\n    ", job.words)).collect();
        let sectors = (disk_mib * MIB / 512).to_string();
        let count = std::fs::metadata(&disk)?.len() / MIB - 1;
        let script = scratch.join("script");
        let text = SCRIPT.replace("JOBS", &jobs).replace("SECTORS", &sectors).replace("COUNT", &count.to_string());
        std::fs::write(&script, text)?;
        let script = Command::new("base64").arg("-w0").arg(&script).output()?;
        let body = json!({"server": {"name": "bench", "flavorRef": flavor, "imageRef": image, "networks": "none",
            "config_drive": true, "user_data": String::from_utf8(script.stdout)?,
            "block_device_mapping_v2": [
                {"source_type": "image", "destination_type": "local", "uuid": image, "boot_index": 0},
                {"source_type": "image", "destination_type": "volume", "uuid": tools, "volume_size": 1,
                 "boot_index": -1, "delete_on_termination": true}]}});
        let made = demo.json(Method::POST, "/compute/v2.1/servers", body).await?;
        let server = made["server"]["id"].as_str().context("id")?.to_owned();
        let ours = Console { path: state.join(format!("hosts/guests/{server}/console.log")), at: 0 };
        ours.wait("bench: prepared")?;
        let (mut hand, _) = Hand::start(state, Some(&server), Some(&disk))?;
        hand.call("cont", json!({}))?;
        let theirs = Console { path: hand.folder.join("log"), at: 0 };
        theirs.wait("bench: prepared")?;
        Ok(Pair { volumes: Volumes::of(demo, "demo").await?, server, ours, hand, theirs })
    }

    /// Removes the cloud's guest; the other one ends with this.
    pub async fn end(mut self) -> Result<()> {
        let path = format!("/compute/v2.1/servers/{}", self.server);
        self.volumes.session.send(Method::DELETE, &path, "", Bytes::new()).await.map(drop)
    }

    async fn plug(&mut self, volume: &str) -> Result<()> {
        let path = format!("/compute/v2.1/servers/{}/os-volume_attachments", self.server);
        let body = json!({"volumeAttachment": {"volumeId": volume}});
        self.volumes.session.json(Method::POST, &path, body).await.map(drop)
    }

    async fn unplug(&mut self, volume: &str) -> Result<()> {
        self.volumes.wait("volume", volume, "in-use").await?;
        let path = format!("/compute/v2.1/servers/{}/os-volume_attachments/{volume}", self.server);
        self.volumes.session.send(Method::DELETE, &path, "", Bytes::new()).await?;
        self.volumes.wait("volume", volume, "available").await
    }

    /// The two calls that plug a disk in.
    fn plug_by_hand(&mut self, disk: &Path) -> Result<()> {
        let node = json!({"driver": "qcow2", "node-name": NODE, "file": {"driver": "file", "filename": disk}});
        self.hand.call("blockdev-add", node)?;
        let device = json!({"driver": "virtio-blk-pci", "id": "disk-by-hand", "drive": NODE, "bus": "slot5"});
        self.hand.call("device_add", device).map(drop)
    }

    /// From the `POST` until the guest's kernel says that the disk is there.
    async fn attach(&mut self) -> Result<Row> {
        let volume = self.volumes.make("volume", json!({"size": 1})).await?;
        let disk = self.hand.folder.join("attached.qcow2");
        make_disk(&disk, None, "1G")?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ATTACHES {
            self.ours.skip();
            let began = Instant::now();
            self.plug(&volume).await?;
            self.ours.wait(SEEN)?;
            ours.push(began.elapsed().as_secs_f64() * 1e3);
            self.unplug(&volume).await?;
            self.theirs.skip();
            let began = Instant::now();
            self.plug_by_hand(&disk)?;
            self.theirs.wait(SEEN)?;
            theirs.push(began.elapsed().as_secs_f64() * 1e3);
            self.hand.take_out("disk-by-hand", NODE)?;
        }
        self.volumes.remove("volume", &volume).await?;
        let (ours, theirs) = (median(ours), median(theirs));
        Ok(Row {
            what: "a volume's attachment until the guest sees the disk".into(),
            measured: format!("{ours:.0} ms"),
            reference: format!("the two bare QMP calls {theirs:.0} ms"),
            ratio: ours / theirs,
            bound: 1.5,
            more_is_better: false,
        })
    }

    /// The same file in both guests in turns.
    async fn throughput(&mut self, state: &Path) -> Result<Vec<Row>> {
        let volume = self.volumes.make("volume", json!({"size": 2})).await?;
        let file = state.join(format!("hosts/volumes/{volume}/1.qcow2"));
        let (mut ours, mut theirs) = (vec![Vec::new(); JOBS.len()], vec![Vec::new(); JOBS.len()]);
        for turn in 0..FIO_TURNS {
            self.ours.skip();
            self.plug(&volume).await?;
            let one = figures(&self.ours.wait("bench: over")?, &JOBS)?;
            self.unplug(&volume).await?;
            self.theirs.skip();
            self.plug_by_hand(&file)?;
            let other = figures(&self.theirs.wait("bench: over")?, &JOBS)?;
            self.hand.take_out("disk-by-hand", NODE)?;
            if turn > 0 {
                ours.iter_mut().zip(one).for_each(|(all, figure)| all.push(figure));
                theirs.iter_mut().zip(other).for_each(|(all, figure)| all.push(figure));
            }
        }
        self.volumes.remove("volume", &volume).await?;
        let both = ours.into_iter().map(median).zip(theirs.into_iter().map(median));
        Ok(both.zip(JOBS).map(|((ours, theirs), job)| Row {
            what: format!("fio in a guest, {}", job.what),
            measured: format!("{ours:.0} MiB/s"),
            reference: format!("QEMU by hand on the same file {theirs:.0} MiB/s"),
            ratio: ours / theirs,
            bound: 0.95,
            more_is_better: true,
        }).collect())
    }
}

/// MiB a second of each job.
pub fn figures(said: &str, jobs: &[Job]) -> Result<Vec<f64>> {
    let lines: Vec<&str> = said.lines().filter_map(|line| line.split_once("bench: fio ")).map(|(_, line)| line).collect();
    if lines.len() != jobs.len() {
        bail!("{} figures of fio: {lines:?}", lines.len());
    }
    lines.iter().zip(jobs).map(|(line, job)| job.figure(line)).collect()
}
