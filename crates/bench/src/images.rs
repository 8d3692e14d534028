//! The image service and the workshop: downloads, many uploads at once, long lists, files with holes.

use crate::load::Connection;
use crate::simulated::{Running, Session, image, noise, timed};
use crate::{Row, median};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TURNS: usize = 7;
const DOWNLOAD_BYTES: usize = 1 << 30;
const UPLOADS: usize = 64;
const UPLOAD_BYTES: usize = 64 << 20;
const IMAGES: usize = 10_000;
const PAGE: usize = 1_000;
const SPARSE_BYTES: usize = 1 << 30;
/// What a receiver reads at a time.
const PIECE: usize = 256 << 10;

/// A folder that goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder> {
        let path = Path::new("/var/tmp").join(format!("nubo-bench-images-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub async fn measure(nubo: &Path) -> Result<Vec<Row>> {
    let folder = Folder::new()?;
    let mut command = Command::new(nubo);
    command.args(["up", "--simulated-hosts", "1"]).env("NUBO_LOG", "warn").env("NUBO_LISTEN", "127.0.0.1:0");
    command.env_remove("NUBO_STATE").env_remove("NUBO_NETNS");
    // As control is started where it is not alone: `ALLOCATOR` of nubo's settings.
    command.envs([("MIMALLOC_ARENA_EAGER_COMMIT", "0"), ("MIMALLOC_PURGE_DELAY", "10")]);
    let cloud = Running::start(command)?;
    let words: Vec<&str> = cloud.line.split(' ').collect();
    let [_, url, clouds] = words[..] else { bail!("nubo said {:?}", cloud.line) };
    let mut admin = Session::login(url, clouds, "nubo").await?;
    let mut rows = vec![download(&mut admin, url, &folder.0).await?];
    rows.push(parallel_uploads(&mut admin, url, cloud.child.id()).await?);
    rows.push(list(&mut admin).await?);
    drop(cloud);
    rows.push(zeros(nubo, &folder.0)?);
    rows.push(bitmaps(nubo, &folder.0)?);
    Ok(rows)
}

/// Reads a stream to its end.
fn discard(mut stream: TcpStream) -> Result<usize> {
    let (mut piece, mut all) = (vec![0; PIECE], 0);
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(all),
            read => all += read,
        }
    }
}

/// One image against `cat` and `nc`, with the same receiver at the other end.
async fn download(admin: &mut Session, url: &str, folder: &Path) -> Result<Row> {
    let bytes = noise(DOWNLOAD_BYTES);
    let file = folder.join("download");
    std::fs::write(&file, &bytes)?;
    let id = image(admin, "download", bytes).await?;
    let host = url.trim_start_matches("http://");
    let request = format!(
        "GET /image/v2/images/{id}/file HTTP/1.1\r\nHost: {host}\r\nX-Auth-Token: {}\r\nConnection: close\r\n\r\n",
        admin.token
    );
    let ours = || -> Result<f64> {
        let began = Instant::now();
        let mut stream = TcpStream::connect(host)?;
        stream.write_all(request.as_bytes())?;
        let read = discard(stream)?;
        if read < DOWNLOAD_BYTES {
            bail!("the download ended after {read} bytes");
        }
        Ok(began.elapsed().as_secs_f64())
    };
    let theirs = || -> Result<f64> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let script = format!("cat {} | nc -N 127.0.0.1 {}", file.display(), listener.local_addr()?.port());
        let began = Instant::now();
        let mut child = Command::new("sh").args(["-c", &script]).spawn()?;
        let read = discard(listener.accept()?.0)?;
        let took = began.elapsed().as_secs_f64();
        if !child.wait()?.success() || read != DOWNLOAD_BYTES {
            bail!("{script}: {read} bytes");
        }
        Ok(took)
    };
    // Once each before it counts: both read from memory then.
    tokio::task::block_in_place(|| ours().and_then(|_| theirs()))?;
    let (mut our, mut their) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        our.push(tokio::task::block_in_place(ours)?);
        their.push(tokio::task::block_in_place(theirs)?);
    }
    let mib = (DOWNLOAD_BYTES >> 20) as f64;
    let (our, their) = (median(our), median(their));
    Ok(Row {
        what: "image download, 1 GiB".into(),
        measured: format!("{:.0} MiB/s", mib / our),
        reference: format!("`cat file | nc` through loopback {:.0} MiB/s", mib / their),
        ratio: their / our,
        bound: 0.8,
        more_is_better: true,
    })
}

/// Anonymous and shared memory of a process in MiB.
fn memory_of(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let lines = text.lines().filter(|line| line.starts_with("RssAnon:") || line.starts_with("RssShmem:"));
    let kib: f64 = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum();
    Ok(kib / 1024.0)
}

async fn parallel_uploads(admin: &mut Session, url: &str, pid: u32) -> Result<Row> {
    // Each begins one byte later: other contents of one memory.
    let bytes = noise(UPLOAD_BYTES + UPLOADS);
    let idle = memory_of(pid)?;
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let watched = {
        let done = done.clone();
        std::thread::spawn(move || {
            let mut most = 0f64;
            while !done.load(Ordering::Relaxed) {
                most = most.max(memory_of(pid).unwrap_or(0.0));
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        })
    };
    let (token, began) = (admin.token.clone(), Instant::now());
    let uploads = (0..UPLOADS).map(|n| {
        let bytes = bytes.slice(n..n + UPLOAD_BYTES);
        let (url, token) = (url.to_owned(), token.clone());
        tokio::spawn(async move {
            let mut session = Session { connection: Connection::open(&url).await?, token };
            image(&mut session, &format!("parallel-{n}"), bytes).await
        })
    });
    let ids = futures::future::join_all(uploads).await;
    let took = began.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    let most = watched.join().ok().context("the watcher ended badly")?;
    for id in ids {
        admin.send(Method::DELETE, &format!("/image/v2/images/{}", id??), "", Bytes::new()).await?;
    }
    let rate = (UPLOADS * UPLOAD_BYTES >> 20) as f64 / took;
    Ok(Row {
        what: format!("memory of {UPLOADS} uploads of 64 MiB at once, beyond that before them"),
        measured: format!("{:.1} MiB ({idle:.1} before, {most:.1} at most; {rate:.0} MiB/s)", most - idle),
        reference: "64 MiB".into(),
        ratio: (most - idle) / 64.0,
        bound: 1.0,
        more_is_better: false,
    })
}

/// All pages of a long list.
async fn list(admin: &mut Session) -> Result<Row> {
    for n in 0..IMAGES {
        let body = json!({"name": format!("list-{n}"), "disk_format": "qcow2", "container_format": "bare",
            "tags": ["bench"], "hw_disk_bus": "virtio", "os_distro": "debian"});
        admin.json(Method::POST, "/image/v2/images", body).await?;
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let mut next = Some(format!("/v2/images?limit={PAGE}&tag=bench"));
        let (mut our, mut their, mut all) = (0.0, 0.0, 0);
        while let Some(path) = next {
            let began = Instant::now();
            let answer = admin.send(Method::GET, &format!("/image{path}"), "application/json", Bytes::new()).await?;
            our += began.elapsed().as_secs_f64();
            let value: Value = serde_json::from_slice(&answer.body)?;
            let began = Instant::now();
            std::hint::black_box(serde_json::to_vec(&value)?);
            their += began.elapsed().as_secs_f64();
            all += value["images"].as_array().map_or(0, Vec::len);
            next = value["next"].as_str().map(|next| next.trim_start_matches("/image").to_owned());
        }
        if all != IMAGES {
            bail!("{all} images in the list instead of {IMAGES}");
        }
        ours.push(our * 1e3);
        theirs.push(their * 1e3);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    Ok(Row {
        what: format!("GET /v2/images, {IMAGES} of them in pages of {PAGE}"),
        measured: format!("{ours:.1} ms"),
        reference: format!("serde_json serializes them in {theirs:.1} ms"),
        ratio: ours / theirs,
        bound: 5.0,
        more_is_better: false,
    })
}

/// Every second MiB is zeros.
fn zeros(nubo: &Path, folder: &Path) -> Result<Row> {
    let pristine = folder.join("zeros");
    let file = File::create(&pristine)?;
    let bytes = noise(1 << 20);
    for n in 0..SPARSE_BYTES >> 20 {
        let piece = if n % 2 == 0 { bytes.clone() } else { Bytes::from(vec![0; 1 << 20]) };
        file.write_all_at(&piece, (n << 20) as u64)?;
    }
    sparsified(nubo, folder, &pristine, "zeros", 1.2)
}

/// An ext4 over bytes that are all of something: whatever it has as free becomes holes.
fn bitmaps(nubo: &Path, folder: &Path) -> Result<Row> {
    let pristine = folder.join("bitmaps");
    std::fs::write(&pristine, noise(SPARSE_BYTES))?;
    let tree = folder.join("tree");
    std::fs::create_dir_all(&tree)?;
    for n in 0..SPARSE_BYTES >> 22 {
        std::fs::write(tree.join(format!("file-{n}")), noise(2 << 20))?;
    }
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-t", "ext4", "-E", "nodiscard", "-d"]).arg(&tree).arg(&pristine);
    if !command.status()?.success() {
        bail!("{command:?} failed");
    }
    sparsified(nubo, folder, &pristine, "the bitmaps of an ext4", 3.0)
}

fn sparsified(nubo: &Path, folder: &Path, pristine: &Path, what: &str, bound: f64) -> Result<Row> {
    let (mut ours, mut theirs, mut freed) = (Vec::new(), Vec::new(), 0.0);
    let work = folder.join("work");
    for _ in 0..TURNS {
        cold(pristine, &work)?;
        theirs.push(timed(&format!("dd bs=1M of=/dev/null status=none if={}", work.display()))?.1);
        cold(pristine, &work)?;
        let before = blocks(&work)?;
        ours.push(timed(&format!("{} image sparsify --in-place {}", nubo.display(), work.display()))?.1);
        freed = 1.0 - blocks(&work)? / before;
        if freed < 0.3 {
            bail!("sparsify gave back {freed:.2} of {}", pristine.display());
        }
    }
    std::fs::remove_file(&work)?;
    let (ours, theirs) = (median(ours), median(theirs));
    Ok(Row {
        what: format!("sparsify by {what}, 1 GiB, CPU ({:.0} % given back)", 100.0 * freed),
        measured: format!("{ours:.2} s"),
        reference: format!("`dd` reads the file in {theirs:.2} s"),
        ratio: ours / theirs,
        bound,
        more_is_better: false,
    })
}

/// A copy that is on disk and no longer in memory, as an image is that somebody looks at again.
fn cold(pristine: &Path, work: &Path) -> Result<()> {
    let (from, to) = (pristine.display(), work.display());
    let script = format!("cp --sparse=never {from} {to} && sync {to} && dd if={to} iflag=nocache count=0 status=none");
    if !Command::new("sh").args(["-c", &script]).status()?.success() {
        bail!("{script} failed");
    }
    Ok(())
}

fn blocks(path: &Path) -> Result<f64> {
    Ok(std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path)?) as f64)
}
