//! Packages of the distribution: downloaded, unpacked into a folder, never installed.

use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the guest and its disk are made of, besides the kernel.
const PACKAGES: [&str; 24] = [
    "busybox-static",
    "dropbear-bin",
    "libtomcrypt1",
    "libtommath1",
    "libgmp10",
    "libcrypt1",
    "zlib1g",
    "libc6",
    "opendoas",
    "libpam0g",
    "libpam-modules",
    "libaudit1",
    "libcap-ng0",
    "e2fsprogs",
    "libext2fs2",
    "libcom-err2",
    "libblkid1",
    "libuuid1",
    "util-linux",
    "syslinux",
    "syslinux-common",
    "mtools",
    "dosfstools",
    "libselinux1",
];

/// The kernel that the distribution makes for virtual machines.
pub struct Kernel {
    pub package: String,
    /// As `uname -r` says it.
    pub release: String,
}

/// The newest cloud kernel that apt knows.
pub fn kernel() -> Result<Kernel> {
    for meta in ["linux-image-cloud-amd64", "linux-image-virtual"] {
        let output = Command::new("apt-cache").args(["depends", meta]).output().context("apt-cache does not run")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: linux-image-")).next();
        if let Some(release) = found.filter(|it| it.starts_with(|first: char| first.is_ascii_digit())) {
            return Ok(Kernel { package: format!("linux-image-{release}"), release: release.into() });
        }
    }
    bail!("apt knows no kernel for virtual machines (linux-image-cloud-amd64); run apt-get update")
}

/// A folder with the content of the packages.
pub struct Unpacked {
    pub root: PathBuf,
    libraries: String,
}

/// Downloads and unpacks what is not there yet.
pub fn fetch(work: &Path, kernel: &Kernel, progress: &mut dyn FnMut(&str)) -> Result<Unpacked> {
    let (debs, root) = (work.join("debs"), work.join("unpacked"));
    fs::create_dir_all(&debs)?;
    let wanted: Vec<&str> = PACKAGES.into_iter().chain([kernel.package.as_str()]).collect();
    let missing: Vec<&str> = wanted.iter().copied().filter(|name| deb(&debs, name).is_err()).collect();
    let done = root.join(format!(".done-{}", kernel.release));
    if !missing.is_empty() {
        progress(&format!("downloading {} packages", missing.len()));
        let mut download = Command::new("apt-get");
        download.args(["-qq", "download"]);
        if nix::unistd::getuid().is_root() {
            // Its own user may not be able to write here, and it would warn of that.
            download.args(["-o", "APT::Sandbox::User=root"]);
        }
        run(download.args(&missing).current_dir(&debs)).context("downloading packages")?;
        let _ = fs::remove_file(&done);
    }
    if !done.exists() {
        progress("unpacking");
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root)?;
        for name in &wanted {
            run(Command::new("dpkg-deb").arg("-x").arg(deb(&debs, name)?).arg(&root))?;
        }
        fs::write(&done, "")?;
    }
    let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|it| root.join(it).display().to_string());
    Ok(Unpacked { libraries: libraries.join(":"), root })
}

fn deb(folder: &Path, package: &str) -> Result<PathBuf> {
    let prefix = format!("{package}_");
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            return Ok(entry.path());
        }
    }
    bail!("package {package} was not downloaded")
}

impl Unpacked {
    /// The first of these paths that exists. Distributions differ in whether `/bin` is `/usr/bin`.
    pub fn file(&self, paths: &[&str]) -> Result<PathBuf> {
        for path in paths {
            for candidate in [self.root.join(path), self.root.join("usr").join(path)] {
                if candidate.exists() {
                    return Ok(candidate);
                }
            }
        }
        bail!("the packages hold no {}", paths.join(" or "))
    }

    fn loader(&self) -> Result<PathBuf> {
        self.file(&["lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"])
    }

    /// A program of the packages, run with their own libraries.
    pub fn command(&self, program: &Path) -> Result<Command> {
        let mut command = Command::new(self.loader()?);
        command.arg("--library-path").arg(&self.libraries).arg(program);
        Ok(command)
    }

    /// Makes programs callable by name: scripts in a folder that others find by PATH.
    pub fn wrap(&self, folder: &Path, program: &Path, names: &[&str]) -> Result<()> {
        fs::create_dir_all(folder)?;
        for name in names {
            let script = format!(
                "#!/bin/sh\nexec '{}' --library-path '{}' '{}' -c {name} \"$@\"\n",
                self.loader()?.display(),
                self.libraries,
                program.display()
            );
            fs::write(folder.join(name), script)?;
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// The loader and the libraries that programs need: name in `/lib`, and file.
    pub fn libraries(&self, programs: &[PathBuf]) -> Result<Vec<(String, PathBuf)>> {
        let mut found = vec![("ld-linux-x86-64.so.2".to_owned(), self.loader()?)];
        for program in programs {
            let mut list = Command::new(self.loader()?);
            list.args(["--library-path", &self.libraries, "--list"]).arg(program);
            let text = run(&mut list)?;
            for line in text.lines() {
                let mut words = line.split_ascii_whitespace();
                let (Some(name), Some("=>"), Some(path)) = (words.next(), words.next(), words.next()) else { continue };
                let path = PathBuf::from(path);
                if !path.starts_with(&self.root) {
                    bail!("{} needs {name}, which comes from none of the packages", program.display());
                }
                if !found.iter().any(|(known, _)| known == name) {
                    found.push((name.to_owned(), path));
                }
            }
        }
        Ok(found)
    }
}

/// Runs a command to its end; its output. A failure says what it said.
pub fn run(command: &mut Command) -> Result<String> {
    command.env("LC_ALL", "C").stdin(std::process::Stdio::null());
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{program} does not run"))?;
    if !output.status.success() {
        bail!("{program} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
