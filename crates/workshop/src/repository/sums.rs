//! The lists of checksums beside the images of Debian's and Ubuntu's cloud sites, and the names that people say for
//! them.

use super::unpack::Hash;

/// An image that a site is known to have.
pub struct Known {
    pub name: &'static str,
    /// The folder.
    pub url: &'static str,
    pub file: &'static str,
}

/// What is pulled by name without naming where from.
pub const KNOWN: [Known; 5] = [
    Known {
        name: "debian-11",
        url: "https://cloud.debian.org/images/cloud/bullseye/latest",
        file: "debian-11-genericcloud-amd64.qcow2",
    },
    Known {
        name: "debian-12",
        url: "https://cloud.debian.org/images/cloud/bookworm/latest",
        file: "debian-12-genericcloud-amd64.qcow2",
    },
    Known {
        name: "debian-13",
        url: "https://cloud.debian.org/images/cloud/trixie/latest",
        file: "debian-13-genericcloud-amd64.qcow2",
    },
    Known {
        name: "ubuntu-22.04",
        url: "https://cloud-images.ubuntu.com/releases/jammy/release",
        file: "ubuntu-22.04-server-cloudimg-amd64.img",
    },
    Known {
        name: "ubuntu-24.04",
        url: "https://cloud-images.ubuntu.com/releases/noble/release",
        file: "ubuntu-24.04-server-cloudimg-amd64.img",
    },
];

pub fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// Lists that are looked for, the stronger first.
pub(crate) const LISTS: [(&str, Hash); 2] = [("SHA512SUMS", Hash::Sha512), ("SHA256SUMS", Hash::Sha256)];

/// The checksum of a file: a line is the sum in hexadecimal digits, blanks, perhaps a star, and the name.
pub(crate) fn find(list: &str, file: &str, hash: Hash) -> Option<String> {
    let mut lines = list.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let (sum, _) = lines.find(|(_, name)| {
        let name = name.trim_start();
        let name = name.strip_prefix('*').unwrap_or(name);
        name.strip_prefix("./").unwrap_or(name) == file
    })?;
    let is_sum = sum.len() == hash.digits() && sum.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_sum.then(|| sum.to_ascii_lowercase())
}
