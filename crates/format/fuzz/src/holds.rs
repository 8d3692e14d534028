//! What must hold for any bytes.

use format::{Decision, Glimpse, HEAD_BYTES, Limits, Source, decide, examine};
use std::cell::Cell;

/// Every `disk_format` that Glance knows.
pub const DISK_FORMATS: [&str; 11] =
    ["raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso", "ploop", "ami", "ari", "aki"];

/// Counts what is read, and refuses any read beyond the end.
struct Counted<'a>(&'a dyn Source, Cell<u64>);

impl Source for Counted<'_> {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.1.set(self.1.get() + buffer.len() as u64);
        self.0.read_at(offset, buffer)
    }
}

/// Panics where a rule is broken: reading beyond the end or without bound, a foreign file that comes through, a stream
/// that is refused although the whole file is accepted.
pub fn holds_for(file: &dyn Source) {
    let source = Counted(file, Cell::new(0));
    let size = file.size_bytes();
    let findings = examine(&source).expect("nothing is read beyond the end");
    // Grain tables of a VMDK may lie over one another, each at another sector.
    let bound = 6 * size + 4 * HEAD_BYTES as u64;
    assert!(source.1.get() <= bound, "read {} bytes of a file of {size}", source.1.get());
    assert!(!findings.formats.is_empty());
    let mut head = vec![0; size.min(2 * HEAD_BYTES as u64) as usize];
    file.read_at(0, &mut head).expect("the head is there");
    for declared in DISK_FORMATS {
        let decision = decide(declared, "bare", &findings, &Limits::default());
        if let (Decision::Accept(_), "qcow2") = (&decision, declared) {
            assert_eq!(head[8..16], [0; 8], "a backing file came through");
            assert!(head[4..8] != [0, 0, 0, 3] || head[79] & 4 == 0, "a data file came through");
            assert_eq!(head[32..36], [0; 4], "an encrypted file came through");
        }
        if let (Decision::Accept(_), "raw") = (&decision, declared) {
            assert!(!head.starts_with(b"QFI\xfb") && !head.starts_with(b"KDMV"));
        }
        if let Decision::Accept(accepted) = &decision {
            assert!(accepted.virtual_size.is_none_or(|size| size <= Limits::default().virtual_size));
        }
        let mut glimpse = Glimpse::new();
        let early = head.chunks(7919).find_map(|chunk| glimpse.push(chunk, declared, "bare", &Limits::default()));
        assert!(early.is_none() || matches!(decision, Decision::Refuse(_)), "refused early, accepted late: {early:?}");
    }
}
