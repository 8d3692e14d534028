//! The tiny guest: a bootable image under 25 MiB from the distribution's own packages.
//!
//! Debian's cloud kernel, busybox, dropbear and a few scripts (`guest/`) in an initramfs, on a FAT partition with
//! SYSLINUX. Built without root, without mounts and without installing anything: packages are downloaded and unpacked,
//! their programs run with their own libraries, and the initramfs is written here with the owners and modes that it
//! shall have. The network is used for nothing but `apt-get download`.

mod cpio;
mod disk;
mod modules;
mod packages;
mod tree;

use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What must be installed on the machine that builds: programs by the apt packages that bring them.
pub const APT_PACKAGES: [&str; 3] = ["dpkg", "gzip", "qemu-utils"];

/// Raised with each change of what is built: an older image in the cache is built anew.
const BUILDER: u32 = 2;
/// What the demo promises.
const MOST_BYTES: u64 = 25 << 20;

pub struct BuildOptions {
    /// Where the qcow2 file shall lie.
    pub output: PathBuf,
    /// Packages and built images are kept here from one build to the next.
    pub work: PathBuf,
}

/// Puts the image at the output, built anew only when the kernel or the builder has changed.
pub fn build(options: BuildOptions, progress: &mut dyn FnMut(&str)) -> Result<()> {
    fs::create_dir_all(&options.work)?;
    let work = options.work.canonicalize()?;
    let _alone = lock(&work.join("lock"))?;
    let kernel = packages::kernel()?;
    let kept = work.join(format!("tiny-{BUILDER}-{}.qcow2", kernel.release));
    if !kept.exists() {
        make(&work, &kernel, &kept, progress)?;
    }
    let size = fs::metadata(&kept)?.len();
    if let Some(folder) = options.output.parent() {
        fs::create_dir_all(folder)?;
    }
    // Not linked: whoever owns the output may do with it what they like.
    let partial = options.output.with_extension("partial");
    fs::copy(&kept, &partial).and_then(|_| fs::rename(&partial, &options.output)).context("placing the image")?;
    progress(&format!("image of {} KiB with kernel {}", size / 1024, kernel.release));
    Ok(())
}

/// The image, built if need be; its path in the work folder. For tests.
pub fn cached(work: &Path) -> Result<PathBuf> {
    let output = work.join("tiny.qcow2");
    fs::create_dir_all(work)?;
    let _alone = lock(&work.join("output.lock"))?;
    // A second start of the tests asks apt nothing.
    let fresh = |path: &Path| fs::metadata(path).and_then(|it| it.modified()).ok();
    let own = std::env::current_exe().ok().and_then(|it| fresh(&it));
    if fresh(&output).is_none_or(|made| own.is_some_and(|own| made < own)) {
        build(BuildOptions { output: output.clone(), work: work.to_owned() }, &mut |_| {})?;
    }
    Ok(output)
}

fn lock(path: &Path) -> Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    file.lock().context("another build holds the lock")?;
    Ok(file)
}

fn make(work: &Path, kernel: &packages::Kernel, kept: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let unpacked = packages::fetch(work, kernel, progress)?;
    progress("building the initramfs");
    let modules = modules::choose(&unpacked, &kernel.release)?;
    let initramfs = cpio::archive(&tree::guest(&unpacked, kernel, &modules)?);
    let stage = work.join("stage");
    let _ = fs::remove_dir_all(&stage);
    fs::create_dir_all(&stage)?;
    fs::write(stage.join("initrd"), &initramfs)?;
    packages::run(std::process::Command::new("gzip").args(["-9", "-n", "-f"]).arg(stage.join("initrd")))?;
    fs::rename(stage.join("initrd.gz"), stage.join("INITRD.GZ"))?;
    fs::copy(unpacked.file(&[&format!("boot/vmlinuz-{}", kernel.release)])?, stage.join("VMLINUZ"))?;
    progress("writing the disk");
    let partial = kept.with_extension("partial");
    disk::write(&unpacked, &stage, &partial)?;
    let size = fs::metadata(&partial)?.len();
    if size >= MOST_BYTES {
        bail!("the image has {size} bytes and may have {MOST_BYTES}: the kernel or its modules have grown");
    }
    fs::rename(&partial, kept)?;
    fs::remove_dir_all(&stage)?;
    Ok(())
}
