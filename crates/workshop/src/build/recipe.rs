//! What a system is made of: a distribution, its packages, where they come from, and mmdebstrap's words for that.

use super::{Disk, Firmware};
use crate::child;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kernel and a cloud's guest, whatever the distribution.
const PACKAGES: &str = "systemd-sysv,udev,dbus,grub2-common,cloud-init,cloud-guest-utils,fdisk,e2fsprogs,netplan.io,\
                        initramfs-tools,openssh-server,iproute2,iputils-ping,ca-certificates,sudo,locales";
/// What boots it from a BIOS.
const BIOS_PACKAGES: &str = "grub-pc-bin";
/// What boots it from UEFI, signed for secure boot; and what checks its partition at boot.
const UEFI_PACKAGES: &str = "shim-signed,grub-efi-amd64-signed,grub-efi-amd64-bin,dosfstools";
/// In the folder of the work: the script that is run in the system, the system, and the index of a cache.
pub(super) const HOOK: &str = "customize";
pub(super) const TARBALL: &str = "root.tar";
pub(super) const CACHE: &str = "cache";
const MIB: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    Debian,
    Ubuntu,
}

impl Distribution {
    pub fn default_release(self) -> &'static str {
        match self {
            Distribution::Debian => "bookworm",
            Distribution::Ubuntu => "noble",
        }
    }

    /// As it is called in names of files: of images, and on the EFI system partition, where its GRUB looks.
    pub fn id(self) -> &'static str {
        match self {
            Distribution::Debian => "debian",
            Distribution::Ubuntu => "ubuntu",
        }
    }

    /// As it calls itself in its mirrors.
    pub(super) fn origin(self) -> &'static str {
        match self {
            Distribution::Debian => "Debian",
            Distribution::Ubuntu => "Ubuntu",
        }
    }

    fn components(self) -> &'static [&'static str] {
        match self {
            Distribution::Debian => &["main"],
            Distribution::Ubuntu => &["main", "universe"],
        }
    }

    /// Where it is, where no mirror is named and the machine has none of that release: addresses and the endings of
    /// its suites there.
    fn mirrors(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Distribution::Debian => &[("http://deb.debian.org/debian", "")],
            Distribution::Ubuntu => &[
                ("http://archive.ubuntu.com/ubuntu", ""),
                ("http://archive.ubuntu.com/ubuntu", "-updates"),
                ("http://security.ubuntu.com/ubuntu", "-security"),
            ],
        }
    }

    /// Where its package of keys puts them.
    fn keyring(self) -> &'static str {
        match self {
            Distribution::Debian => "/usr/share/keyrings/debian-archive-keyring.gpg",
            Distribution::Ubuntu => "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
        }
    }

    fn kernel(self) -> &'static str {
        match self {
            Distribution::Debian => "linux-image-cloud-amd64",
            Distribution::Ubuntu => "linux-image-virtual",
        }
    }

    /// Releases whose systemd brings its resolver in its own package.
    fn resolver_within(self) -> &'static [&'static str] {
        match self {
            Distribution::Debian => &["bullseye"],
            Distribution::Ubuntu => &["focal", "jammy"],
        }
    }

    /// A disk has at least so much.
    pub(super) fn least_bytes(self) -> u64 {
        match self {
            Distribution::Debian => 2048 * MIB,
            Distribution::Ubuntu => 3072 * MIB,
        }
    }
}

/// A system, as mmdebstrap makes it.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub distribution: Distribution,
    /// A code name: `bookworm`.
    pub release: String,
    /// `http://…`, `https://…` or `file:///…`. None: what this machine's apt has of that release, else the
    /// distribution's own.
    pub mirror: Option<String>,
    /// A folder of packages instead of a mirror; nothing signs it.
    pub cache: Option<PathBuf>,
    /// Keys that sign the mirror, instead of the machine's.
    pub keyring: Option<PathBuf>,
    /// Packages besides.
    pub include: Vec<String>,
}

/// The lines of apt's sources.
pub(super) struct Sources {
    pub lines: Vec<String>,
    /// They are what this machine's apt has.
    pub machine: bool,
}

impl Recipe {
    /// # Errors
    /// Refused where a word would be an option or a line of its own.
    pub(super) fn check(&self) -> Result<()> {
        let word = |text: &str, more: &str| {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c);
            !text.is_empty() && text.len() < 100 && text.chars().all(fits) && !text.starts_with('-')
        };
        if !word(&self.release, "-") {
            return Err(Error::Refused(format!("'{}' is no code name of a release", self.release)));
        }
        if let Some(package) = self.include.iter().find(|package| !word(package, "-+.")) {
            return Err(Error::Refused(format!("'{package}' is no name of a package")));
        }
        let fits = |mirror: &String| {
            let known = ["http://", "https://", "file:///"].iter().any(|scheme| mirror.starts_with(scheme));
            let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '[' | ']' | '#');
            known && mirror.len() < 1000 && mirror.chars().all(fits)
        };
        match &self.mirror {
            Some(mirror) if !fits(mirror) => {
                Err(Error::Refused(format!("'{mirror}' is no mirror: http://…, https://… or file:///… are")))
            }
            _ => Ok(()),
        }
    }

    /// The keys that sign it, where others than apt's own are to be taken.
    ///
    /// # Errors
    /// Refused where none can be here: apt would fetch first, and not say what helps.
    fn keys(&self, sources: &Sources) -> Result<Option<PathBuf>> {
        if let Some(keys) = &self.keyring {
            return keys.canonicalize().map(Some).map_err(Error::at(keys));
        }
        let usual = self.distribution.keyring();
        match self.cache.is_some() || sources.machine || Path::new(usual).exists() {
            true => Ok(None),
            false => Err(Error::Refused(format!(
                "the keys that sign {} are not on this machine ({usual}): install its package of keys, or say --keyring",
                self.distribution.origin()
            ))),
        }
    }

    pub(super) fn sources(&self, work: &Path) -> Sources {
        if self.cache.is_some() {
            let mirror = escaped(&work.join(CACHE));
            return Sources { lines: vec![format!("deb [trusted=yes] copy:{mirror} ./")], machine: false };
        }
        let (release, components) = (&self.release, self.distribution.components().join(" "));
        if let Some(mirror) = &self.mirror {
            return Sources { lines: vec![format!("deb {mirror} {release} {components}")], machine: false };
        }
        let mut ask = Command::new("apt-get");
        let format = "$(ORIGIN) $(REPO_URI) $(CODENAME) $(COMPONENT)";
        ask.args(["indextargets", "--format", format, "Created-By: Packages"]).env("LC_ALL", "C");
        let own = child::run(&mut ask).map(|output| output.stdout).unwrap_or_default();
        let lines = self.machine_sources(&own);
        if !lines.is_empty() {
            return Sources { lines, machine: true };
        }
        Sources { lines: self.own_sources(), machine: false }
    }

    fn own_sources(&self) -> Vec<String> {
        let (release, components) = (&self.release, self.distribution.components().join(" "));
        let mirrors = self.distribution.mirrors().iter();
        mirrors.map(|(mirror, suite)| format!("deb {mirror} {release}{suite} {components}")).collect()
    }

    /// What the system's apt has instead of what it was built from, where that is nothing for a guest.
    pub(super) fn sources_of_guest(&self) -> Option<Vec<String>> {
        let local = self.cache.is_some() || self.is_folder();
        local.then(|| self.own_sources())
    }

    fn is_folder(&self) -> bool {
        self.mirror.as_deref().is_some_and(|mirror| mirror.starts_with("file:"))
    }

    /// What the machine's apt has of a release, if that is all of the release itself and not only its updates.
    pub(super) fn machine_sources(&self, targets: &str) -> Vec<String> {
        let (release, components) = (&self.release, self.distribution.components());
        let mut lines: Vec<String> = Vec::new();
        for line in targets.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [origin, uri, code, component] = words[..] else { continue };
            let ours = code == release || code == format!("{release}-updates") || code == format!("{release}-security");
            let line = format!("deb {uri} {code} {component}");
            let named = origin == self.distribution.origin() && components.contains(&component);
            if ours && named && !lines.contains(&line) {
                lines.push(line);
            }
        }
        let has = |component| lines.iter().any(|line| line.ends_with(&format!(" {release} {component}")));
        if components.iter().all(has) { lines } else { Vec::new() }
    }

    fn packages(&self, firmware: Firmware) -> Vec<&str> {
        let mut packages = vec![self.distribution.kernel(), PACKAGES];
        packages.extend(firmware.bios().then_some(BIOS_PACKAGES));
        packages.extend(firmware.uefi().then_some(UEFI_PACKAGES));
        let within = self.distribution.resolver_within().contains(&self.release.as_str());
        packages.extend((!within).then_some("systemd-resolved"));
        packages.extend(self.include.iter().map(String::as_str));
        packages
    }

    /// mmdebstrap's words: in the folder `work` it writes the tarball, runs the hook when everything is installed, and
    /// finds the index of a cache.
    ///
    /// # Errors
    /// Refused where there are no keys.
    pub(super) fn words(&self, on: &Disk, work: &Path) -> Result<Vec<String>> {
        let (firmware, sources) = (on.firmware.unwrap_or(Firmware::Both), self.sources(work));
        let mut words: Vec<String> =
            ["--mode=root", "--quiet", "--variant=minbase", "--architectures=amd64"].map(str::to_owned).into();
        words.push(format!("--components={}", self.distribution.components().join(",")));
        words.extend(self.packages(firmware).iter().map(|package| format!("--include={package}")));
        words.push(format!("--customize-hook={}", work.join(HOOK).display()));
        words.extend(self.keys(&sources)?.map(|keys| format!("--keyring={}", keys.display())));
        if self.cache.is_some() {
            // Its folder is in one that nobody but us may enter.
            words.push("--aptopt=APT::Sandbox::User \"root\"".to_owned());
        }
        if self.is_folder() {
            words.push("--hook-dir=/usr/share/mmdebstrap/hooks/file-mirror-automount".to_owned());
        }
        words.extend([self.release.clone(), work.join(TARBALL).display().to_string()]);
        words.extend(sources.lines);
        Ok(words)
    }
}

/// A path as a URL has it.
fn escaped(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(byte);
    let bytes = path.as_os_str().as_bytes().iter();
    bytes.map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") }).collect()
}
