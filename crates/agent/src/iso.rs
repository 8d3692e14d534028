//! A small ISO 9660 image with Rock Ridge names, for the config drive.
//!
//! Only what a guest's `mount -t iso9660` needs: one volume, folders of at most one sector of entries, no links.
//! ECMA-119 says the shapes; the Rock Ridge fields are `SP`, `ER`, `PX` and `NM` of IEEE P1282.

use std::collections::BTreeMap;
use std::io;

const SECTOR: usize = 2048;
/// Where folders begin: behind the system area, two descriptors and two path tables.
const FIRST_FOLDER: usize = 20;

#[derive(Default)]
struct Folder {
    parent: usize,
    folders: BTreeMap<String, usize>,
    files: BTreeMap<String, usize>,
}

struct Tree<'a> {
    folders: Vec<Folder>,
    contents: Vec<&'a [u8]>,
}

/// An image of these files (paths with slashes), with this volume label.
pub fn build(label: &str, files: &[(String, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let tree = Tree::new(files)?;
    let first_file = FIRST_FOLDER + tree.folders.len();
    let mut places = Vec::new();
    let mut next = first_file;
    for content in &tree.contents {
        places.push(next);
        next += content.len().div_ceil(SECTOR);
    }
    let mut image = vec![0u8; next * SECTOR];
    let tables =
        [tree.path_table(u16::to_le_bytes, u32::to_le_bytes), tree.path_table(u16::to_be_bytes, u32::to_be_bytes)];
    if tables[0].len() > SECTOR {
        return Err(too_much("folders"));
    }
    image[16 * SECTOR..17 * SECTOR].copy_from_slice(&tree.descriptor(label, next, tables[0].len()));
    image[17 * SECTOR..17 * SECTOR + 7].copy_from_slice(b"\xffCD001\x01");
    for (at, table) in tables.iter().enumerate() {
        let start = (18 + at) * SECTOR;
        image[start..start + table.len()].copy_from_slice(table);
    }
    for at in 0..tree.folders.len() {
        let bytes = tree.folder(at, &places)?;
        let start = (FIRST_FOLDER + at) * SECTOR;
        image[start..start + bytes.len()].copy_from_slice(&bytes);
    }
    for (content, place) in tree.contents.iter().zip(&places) {
        let start = place * SECTOR;
        image[start..start + content.len()].copy_from_slice(content);
    }
    Ok(image)
}

fn too_much(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("too many or too long {what} for a small ISO 9660 image"))
}

impl<'a> Tree<'a> {
    fn new(files: &'a [(String, Vec<u8>)]) -> io::Result<Tree<'a>> {
        let mut tree = Tree { folders: vec![Folder::default()], contents: Vec::new() };
        for (path, content) in files {
            let mut at = 0;
            let mut parts: Vec<&str> = path.split('/').collect();
            let name = parts.pop().unwrap_or_default();
            if path.len() > 200 || name.is_empty() || u32::try_from(content.len()).is_err() {
                return Err(too_much("names"));
            }
            for part in parts {
                at = match tree.folders[at].folders.get(part) {
                    Some(known) => *known,
                    None => {
                        let new = tree.folders.len();
                        tree.folders.push(Folder { parent: at, ..Folder::default() });
                        tree.folders[at].folders.insert(part.to_owned(), new);
                        new
                    }
                };
            }
            tree.folders[at].files.insert(name.to_owned(), tree.contents.len());
            tree.contents.push(content);
        }
        Ok(tree)
    }

    fn path_table(&self, short: fn(u16) -> [u8; 2], long: fn(u32) -> [u8; 4]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (at, folder) in self.folders.iter().enumerate() {
            let name = if at == 0 { vec![0] } else { plain_name("D", at) };
            bytes.extend([name.len() as u8, 0]);
            bytes.extend(long((FIRST_FOLDER + at) as u32));
            bytes.extend(short(folder.parent as u16 + 1));
            bytes.extend(&name);
            bytes.resize(bytes.len().next_multiple_of(2), 0);
        }
        bytes
    }

    fn folder(&self, at: usize, places: &[usize]) -> io::Result<Vec<u8>> {
        let folder = &self.folders[at];
        let here = |at: usize| (FIRST_FOLDER + at) as u32;
        let mut first = Vec::new();
        if at == 0 {
            first.extend(b"SP\x07\x01\xbe\xef\x00");
            first.extend(b"ER\x12\x01\x0a\x00\x00\x01RRIP_1991A");
        }
        let mut bytes = record(&[0], here(at), SECTOR as u32, true, None, &first)?;
        bytes.extend(record(&[1], here(folder.parent), SECTOR as u32, true, None, &[])?);
        for (name, inner) in &folder.folders {
            bytes.extend(record(&plain_name("D", *inner), here(*inner), SECTOR as u32, true, Some(name), &[])?);
        }
        for (name, file) in &folder.files {
            let (place, length) = (places[*file] as u32, self.contents[*file].len() as u32);
            bytes.extend(record(&plain_name("F", *file), place, length, false, Some(name), &[])?);
        }
        if bytes.len() > SECTOR { Err(too_much("files in one folder")) } else { Ok(bytes) }
    }

    fn descriptor(&self, label: &str, sectors: usize, table: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SECTOR);
        let text = |text: &str, length: usize| {
            let mut field = text.as_bytes().to_vec();
            field.resize(length, b' ');
            field
        };
        bytes.extend(b"\x01CD001\x01\x00");
        bytes.extend(text("LINUX", 32));
        bytes.extend(text(label, 32));
        bytes.extend([0; 8]);
        bytes.extend(both32(sectors as u32));
        bytes.extend([0; 32]);
        bytes.extend([both16(1), both16(1), both16(SECTOR as u16)].concat());
        bytes.extend(both32(table as u32));
        bytes.extend(18u32.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(19u32.to_be_bytes());
        bytes.extend([0; 4]);
        // The root folder's record without system use fields, as the standard has it: 34 bytes.
        bytes.extend(plain_record(&[0], FIRST_FOLDER as u32, SECTOR as u32, true));
        bytes.extend(text("", 128 * 4));
        bytes.extend(text("", 37 * 3));
        for _ in 0..4 {
            bytes.extend(b"0000000000000000\x00");
        }
        bytes.extend([1, 0]);
        bytes.resize(SECTOR, 0);
        bytes
    }
}

/// A name of upper-case letters and digits, as the plain standard wants it; guests see the Rock Ridge name.
fn plain_name(kind: &str, number: usize) -> Vec<u8> {
    let end = if kind == "F" { ".;1" } else { "" };
    format!("{kind}{number:05}{end}").into_bytes()
}

fn both16(value: u16) -> Vec<u8> {
    [value.to_le_bytes(), value.to_be_bytes()].concat()
}

fn both32(value: u32) -> Vec<u8> {
    [value.to_le_bytes(), value.to_be_bytes()].concat()
}

fn plain_record(name: &[u8], place: u32, length: u32, folder: bool) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    bytes.extend(both32(place));
    bytes.extend(both32(length));
    bytes.extend([126, 1, 1, 0, 0, 0, 0]); // 2026-01-01
    bytes.extend([if folder { 2 } else { 0 }, 0, 0]);
    bytes.extend(both16(1));
    bytes.push(name.len() as u8);
    bytes.extend(name);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes[0] = bytes.len() as u8;
    bytes
}

fn record(
    name: &[u8],
    place: u32,
    length: u32,
    folder: bool,
    shown: Option<&str>,
    first: &[u8],
) -> io::Result<Vec<u8>> {
    let mut bytes = plain_record(name, place, length, folder);
    bytes.extend(first);
    let mode: u32 = if folder { 0o040_555 } else { 0o100_444 };
    bytes.extend(b"PX\x24\x01");
    for value in [mode, 1, 0, 0] {
        bytes.extend(both32(value));
    }
    if let Some(shown) = shown {
        bytes.extend(b"NM");
        bytes.extend([5 + shown.len().min(200) as u8, 1, 0]);
        bytes.extend(&shown.as_bytes()[..shown.len().min(200)]);
    }
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes[0] = u8::try_from(bytes.len()).map_err(|_| too_much("names"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn isoinfo_reads_it_back() {
        let files = vec![
            ("openstack/latest/meta_data.json".to_owned(), b"{\"uuid\": 1}".to_vec()),
            ("openstack/latest/user_data".to_owned(), vec![b'u'; 5000]),
            ("openstack/latest/empty".to_owned(), Vec::new()),
            ("ec2/latest/meta-data.json".to_owned(), b"{}".to_vec()),
        ];
        let image = build("config-2", &files).unwrap();
        assert_eq!(image.len() % SECTOR, 0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drive.iso");
        std::fs::write(&path, &image).unwrap();
        let run = |args: &[&str]| Command::new("isoinfo").args(args).arg("-i").arg(&path).output();
        let Ok(listing) = run(&["-R", "-f"]) else {
            println!("SKIP isoinfo is not installed");
            return;
        };
        let listing = String::from_utf8(listing.stdout).unwrap();
        let mut listing: Vec<&str> = listing.lines().collect();
        listing.sort();
        assert_eq!(
            listing,
            [
                "/ec2",
                "/ec2/latest",
                "/ec2/latest/meta-data.json",
                "/openstack",
                "/openstack/latest",
                "/openstack/latest/empty",
                "/openstack/latest/meta_data.json",
                "/openstack/latest/user_data",
            ]
        );
        let content = run(&["-R", "-x", "/openstack/latest/user_data"]).unwrap();
        assert_eq!(content.stdout, vec![b'u'; 5000]);
        let about = String::from_utf8(run(&["-d"]).unwrap().stdout).unwrap();
        assert!(about.contains("Volume id: config-2"), "{about}");
        assert!(about.contains("Rock Ridge"), "{about}");
    }

    #[test]
    fn too_much_is_refused() {
        let many: Vec<_> = (0..100).map(|at| (format!("folder/file-{at}"), Vec::new())).collect();
        assert!(build("x", &many).is_err());
        assert!(build("x", &[("y".repeat(300), Vec::new())]).is_err());
    }
}
