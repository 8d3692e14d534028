//! An archive in the kernel's initramfs format (cpio `newc`), written without owning the files in it.

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Folder,
    File(Vec<u8>),
    Link(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub node: Node,
    /// Permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: u32,
}

/// Paths without a leading slash; folders come before what lies in them by the order of names.
pub type Entries = BTreeMap<String, Entry>;

pub fn archive(entries: &Entries) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, (path, entry)) in entries.iter().enumerate() {
        let (kind, content) = match &entry.node {
            Node::Folder => (0o040_000, &[][..]),
            Node::File(content) => (0o100_000, &content[..]),
            Node::Link(target) => (0o120_000, target.as_bytes()),
        };
        member(&mut bytes, at as u32 + 1, kind | entry.mode, entry.owner, path, content);
    }
    member(&mut bytes, 0, 0, 0, "TRAILER!!!", &[]);
    bytes
}

fn member(bytes: &mut Vec<u8>, number: u32, mode: u32, owner: u32, path: &str, content: &[u8]) {
    let links = 1;
    let fields = [number, mode, owner, owner, links, 0, content.len() as u32, 0, 0, 0, 0, path.len() as u32 + 1, 0];
    bytes.extend(b"070701");
    for field in fields {
        bytes.extend(format!("{field:08x}").as_bytes());
    }
    bytes.extend(path.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_aligned_and_ends_with_its_trailer() {
        let mut entries = Entries::new();
        entries.insert("bin".into(), Entry { node: Node::Folder, mode: 0o755, owner: 0 });
        entries.insert("bin/su".into(), Entry { node: Node::File(b"abc".to_vec()), mode: 0o4755, owner: 0 });
        let bytes = archive(&entries);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(bytes.len() % 4, 0);
        assert!(text.starts_with("07070100000001000041ed"), "{text}");
        assert!(text.contains("07070100000002000089ed"), "{text}");
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }
}
