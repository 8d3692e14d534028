//! An image out of a repository or from a site of cloud images: fetched, held against checksum and signature,
//! unpacked, inspected.

use super::index::{self, Entry, INDEX_BYTES};
use super::sums;
use super::unpack::{self, Hash, Intake};
use super::{Fetch, signature};
use crate::error::{Error, Result};
use crate::image::VIRTUAL_BYTES;
use crate::place::{Place, folder};
use format::{Decision, Findings, Format, Limits, OnDisk};
use serde::Serialize;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What is wanted, and from where.
#[derive(Clone, Debug)]
pub struct Pull {
    pub name: String,
    /// The folder: `http://…`, `https://…`, or one of this machine. None: where an image of that name is known to be.
    pub from: Option<String>,
    /// Where the image goes; none: its name, in this folder.
    pub output: Option<PathBuf>,
    /// Keys of which one must have signed the index or the list of checksums.
    pub keyring: Option<PathBuf>,
    pub arch: String,
    /// Bytes that are fetched, and bytes that come out of them, at most.
    pub most_bytes: u64,
    pub force: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pulled {
    pub output: String,
    pub format: String,
    pub size_bytes: u64,
    pub virtual_size: u64,
    /// Whether a key of the keyring has signed what names the checksum.
    pub signed: bool,
}

/// A file that is to be fetched, and what is known of it.
struct Wanted {
    file: String,
    hash: Hash,
    sum: String,
    format: Option<String>,
    virtual_size: Option<u64>,
    packed_bytes: Option<u64>,
}

/// Gets an image.
///
/// # Errors
/// Refused where there is no such image, and where checksum, signature, format or size are not what they should be;
/// nothing is left then.
pub fn pull(what: &Pull, web: &mut dyn Fetch) -> Result<Pulled> {
    index::check_name(&what.name).map_err(|why| Error::Refused(format!("the image {why}")))?;
    let from = origin(what)?;
    let mut local = Local;
    let fetch = if is_web(&from) { web } else { &mut local };
    if let Some(output) = what.output.as_deref().filter(|output| !what.force && output.exists()) {
        return Err(Error::Exists(output.to_owned()));
    }
    let wanted = wanted(what, &from, fetch)?;
    let folder = what.output.as_deref().map_or(Path::new("."), folder);
    let mut place = fetched(what, &from, &wanted, folder, fetch)?;
    if wanted.file.ends_with(".xz") {
        let most = wanted.virtual_size.filter(|_| wanted.format.as_deref() == Some("raw"));
        let unpacked = Place::scratch(folder)?;
        unpack::xz(place.file(), unpacked.file(), most.unwrap_or(what.most_bytes).min(what.most_bytes))?;
        place = unpacked;
    }
    let source = place.file().try_clone().and_then(OnDisk::new).map_err(Error::doing("reading the image"))?;
    let findings = format::examine(&source).map_err(Error::doing("reading the image"))?;
    let format = accepted(&wanted, &findings)?;
    let output = what.output.clone().unwrap_or_else(|| PathBuf::from(format!("{}.{format}", what.name)));
    place.aim(&output, what.force)?;
    place.finish()?;
    Ok(Pulled {
        output: output.display().to_string(),
        format,
        size_bytes: findings.size_bytes,
        virtual_size: findings.virtual_size,
        signed: what.keyring.is_some(),
    })
}

fn origin(what: &Pull) -> Result<String> {
    match (&what.from, sums::known(&what.name)) {
        (Some(from), _) => Ok(from.trim_end_matches('/').to_owned()),
        (None, Some(known)) => Ok(known.url.to_owned()),
        (None, None) => {
            let names: Vec<&str> = sums::KNOWN.iter().map(|known| known.name).collect();
            let (name, names) = (&what.name, names.join(", "));
            Err(Error::Refused(format!("no site is known for '{name}': say --from, or one of {names}")))
        }
    }
}

fn is_web(from: &str) -> bool {
    from.starts_with("http://") || from.starts_with("https://")
}

/// The file itself, as it is in the repository, with the right checksum.
fn fetched(what: &Pull, from: &str, wanted: &Wanted, folder: &Path, fetch: &mut dyn Fetch) -> Result<Place> {
    let place = Place::scratch(folder)?;
    let most = wanted.packed_bytes.unwrap_or(what.most_bytes).min(what.most_bytes);
    let mut intake = Intake::new(place.file(), wanted.hash, most);
    let file = &wanted.file;
    if !fetch.get(&format!("{from}/{file}"), &mut intake)? {
        return Err(Error::Refused(format!("{from} lists {file}, and has no such file")));
    }
    let sum = intake.sum();
    match sum == wanted.sum {
        true => Ok(place),
        false => Err(Error::Refused(format!(
            "{file} is not what the list says: its checksum is {sum}, and {} would be right",
            wanted.sum
        ))),
    }
}

/// Holds the image against what the index says; its `disk_format`.
fn accepted(wanted: &Wanted, findings: &Findings) -> Result<String> {
    let found = findings.format().and_then(Format::disk_format);
    let declared = wanted.format.as_deref().or(found).unwrap_or("raw");
    match format::decide(declared, "bare", findings, &Limits { virtual_size: VIRTUAL_BYTES }) {
        Decision::Refuse(why) => return Err(Error::Refused(format!("{}: {why}", wanted.file))),
        Decision::Accept(_) => {}
    }
    if let Some(size) = wanted.virtual_size.filter(|size| *size != findings.virtual_size) {
        let (file, found) = (&wanted.file, findings.virtual_size);
        return Err(Error::Refused(format!("{file} has a disk of {found} bytes, and the index says {size}")));
    }
    Ok(declared.to_owned())
}

/// Looks for an index, then for a list of checksums.
fn wanted(what: &Pull, from: &str, fetch: &mut dyn Fetch) -> Result<Wanted> {
    if let Some(text) = index_text(what, from, fetch)? {
        return listed(what, &index::parse(&text)?, from);
    }
    for (list, hash) in sums::LISTS {
        let Some(bytes) = text(fetch, &format!("{from}/{list}"))? else { continue };
        if let Some(keyring) = &what.keyring {
            list_is_signed(&bytes, &format!("{from}/{list}"), keyring, fetch)?;
        }
        return summed(what, &utf8(bytes)?, list, hash);
    }
    let looked_for = if what.keyring.is_some() { "index.asc" } else { "index, index.asc" };
    Err(Error::Refused(format!("{from} has no {looked_for}, SHA512SUMS or SHA256SUMS")))
}

fn index_text(what: &Pull, from: &str, fetch: &mut dyn Fetch) -> Result<Option<String>> {
    if what.keyring.is_none()
        && let Some(plain) = text(fetch, &format!("{from}/index"))?
    {
        return utf8(plain).map(Some);
    }
    let Some(signed) = text(fetch, &format!("{from}/index.asc"))? else { return Ok(None) };
    match &what.keyring {
        Some(keyring) => utf8(signature::clear(&signed, keyring)?).map(Some),
        None => Ok(Some(cleartext(&utf8(signed)?))),
    }
}

/// What stands in a clear-signed file, for those who do not ask whether it is true.
fn cleartext(signed: &str) -> String {
    let inside = signed.lines().skip_while(|line| !line.trim().is_empty()).skip(1);
    let lines = inside.take_while(|line| *line != "-----BEGIN PGP SIGNATURE-----");
    lines.map(|line| format!("{}\n", line.strip_prefix("- ").unwrap_or(line))).collect()
}

fn list_is_signed(list: &[u8], url: &str, keyring: &Path, fetch: &mut dyn Fetch) -> Result<()> {
    for ending in ["gpg", "sign", "asc"] {
        if let Some(signature) = text(fetch, &format!("{url}.{ending}"))? {
            return signature::detached(list, &signature, keyring);
        }
    }
    Err(Error::Refused(format!("{url} is not signed, and a keyring was given")))
}

/// The newest image of that name and architecture in an index.
fn listed(what: &Pull, entries: &[Entry], from: &str) -> Result<Wanted> {
    let named = entries.iter().filter(|entry| entry.name == what.name);
    let fitting = named.filter(|entry| entry.get("arch").is_none_or(|arch| arch == what.arch));
    let entry = fitting.max_by_key(|entry| entry.number("revision").unwrap_or(1)).ok_or_else(|| {
        let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).take(20).collect();
        names.dedup();
        Error::Refused(format!("{from} has no {} for {}; it has {}", what.name, what.arch, names.join(", ")))
    })?;
    let missing = |field: &str| Error::Refused(format!("the index says no {field} of {}", what.name));
    let sum = entry.get("checksum[sha512]").or(entry.get("checksum")).ok_or_else(|| missing("checksum"))?;
    if sum.len() != Hash::Sha512.digits() {
        return Err(Error::Refused(format!("the checksum of {} is no SHA-512", what.name)));
    }
    let file = entry.get("file").ok_or_else(|| missing("file"))?.to_owned();
    check_file(&file)?;
    Ok(Wanted {
        file,
        hash: Hash::Sha512,
        sum: sum.to_ascii_lowercase(),
        format: entry.get("format").filter(|format| *format != "auto").map(str::to_owned),
        virtual_size: entry.number("size"),
        packed_bytes: entry.number("compressed_size"),
    })
}

/// An index may name what lies below it, and nothing else.
fn check_file(file: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+' | '~');
    let parts = file.split('/').all(|part| !matches!(part, "" | "." | ".."));
    match file.len() <= 1024 && parts && file.chars().all(fits) {
        true => Ok(()),
        false => {
            Err(Error::Refused(format!("the index names the file '{}', which is not below it", file.escape_debug())))
        }
    }
}

/// A file that is named as such, or by the short name of a site's image.
fn summed(what: &Pull, list: &str, name: &str, hash: Hash) -> Result<Wanted> {
    let files = [Some(what.name.as_str()), sums::known(&what.name).map(|known| known.file)];
    for file in files.into_iter().flatten() {
        if let Some(sum) = sums::find(list, file, hash) {
            let file = file.to_owned();
            return Ok(Wanted { file, hash, sum, format: None, virtual_size: None, packed_bytes: None });
        }
    }
    Err(Error::Refused(format!("{name} has no {}", what.name)))
}

fn text(fetch: &mut dyn Fetch, url: &str) -> Result<Option<Vec<u8>>> {
    let mut bytes = Short(Vec::new());
    Ok(fetch.get(url, &mut bytes)?.then_some(bytes.0))
}

fn utf8(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::Refused("the index is no text in UTF-8".to_owned()))
}

/// Takes as much as an index may have.
struct Short(Vec<u8>);

impl Write for Short {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > INDEX_BYTES as usize {
            return Err(io::Error::other(format!("it has more than {INDEX_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A repository in a folder of this machine.
struct Local;

impl Fetch for Local {
    fn get(&mut self, url: &str, into: &mut dyn Write) -> Result<bool> {
        let path = Path::new(url.strip_prefix("file://").unwrap_or(url));
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::at(path)(error)),
        };
        if !file.metadata().map_err(Error::at(path))?.is_file() {
            return Err(Error::Refused(format!("{} is no plain file", path.display())));
        }
        io::copy(&mut file, into).map_err(Error::at(path))?;
        Ok(true)
    }
}
