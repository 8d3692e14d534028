//! The corpus of the fuzz targets, replayed: what once was found stays mended where no fuzzer runs.

use super::holds::{DISK_FORMATS, holds_for};
use super::pieces::Pieces;
use super::*;
use std::path::Path;

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).expect("the corpus is there").map(|entry| entry.expect("readable").path());
    let mut files: Vec<_> = entries.collect();
    files.sort();
    let read = |path: &std::path::PathBuf| (path.display().to_string(), std::fs::read(path).expect("readable"));
    files.iter().map(read).collect()
}

#[test]
fn the_corpus_of_bytes_holds() {
    let files = corpus("bytes");
    assert!(files.len() >= 20, "{} seeds", files.len());
    for (name, file) in files {
        println!("{name}");
        holds_for(&file);
    }
}

/// It also shows every format, accepted and refused, so that mutations begin on both sides.
#[test]
fn the_corpus_of_pieces_holds_and_has_every_format() {
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for (name, input) in corpus("pieces") {
        println!("{name}");
        let Some(file) = Pieces::parse(&input) else { continue };
        holds_for(&file);
        let findings = examine(&file).expect("pieces read");
        let taken =
            |declared: &&str| matches!(decide(declared, "bare", &findings, &Limits::default()), Decision::Accept(_));
        if DISK_FORMATS.iter().any(|declared| taken(&declared)) { &mut accepted } else { &mut refused }
            .extend(findings.formats);
    }
    use Format::*;
    for format in [Raw, Qcow2, Vmdk, Vdi, Vhd, Vhdx, Iso, Parallels] {
        assert!(accepted.contains(&format), "no accepted {format:?}");
    }
    for format in [Qcow2, Vmdk, Vdi, Vhd, Vhdx, Iso, Parallels, Luks] {
        assert!(refused.contains(&format), "no refused {format:?}");
    }
}

#[test]
fn a_file_written_as_pieces_reads_as_it_was() {
    for file in [qcow2(), vhdx(0, &[], &[]), vmdk(VMDK_DESCRIPTOR), iso(), vhd_fixed(), b"short".to_vec(), Vec::new()] {
        let packed = Pieces::pack(&file, usize::MAX);
        let pieces = Pieces::parse(&packed).expect("it says its size");
        assert_eq!(pieces.size_bytes(), file.len() as u64);
        let mut read = vec![1; file.len()];
        pieces.read_at(0, &mut read).expect("inside");
        assert!(read == file, "{} bytes", file.len());
    }
}
