//! The readers against the file systems' own programs, and against bytes that were tampered with.

use super::volume::Crc;
use super::*;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

/// What fills a disk before a file system is made on it: free blocks hold this, and not zeros.
const FILLER: u8 = 0xaa;
const MIB: u64 = 1 << 20;

struct Bench(tempfile::TempDir);

fn bench() -> Option<Bench> {
    let there = testkit::require("qemu") && testkit::require("filesystems");
    // Gigabytes are written: where there is memory for files, the disk is spared.
    there.then(|| Bench(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()))
}

fn run(program: &str, arguments: &[&str]) -> String {
    let path = testkit::require::find(program).unwrap();
    let output = Command::new(path).args(arguments).env("LC_ALL", "C").output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

impl Bench {
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn disk(&self, name: &str, size: u64) -> String {
        let path = self.path(name);
        fs::write(&path, vec![FILLER; size as usize]).unwrap();
        path
    }

    /// A folder with files of many sizes, none of them of zeros or of the filler.
    fn files(&self) -> String {
        let folder = PathBuf::from(self.path("files"));
        fs::create_dir_all(folder.join("below")).unwrap();
        for n in 0..40u32 {
            let bytes: Vec<u8> = (0..n * 7001).map(|at| (at.wrapping_mul(2_654_435_761) >> 16) as u8 | 1).collect();
            let name = if n % 3 == 0 { format!("below/{n}") } else { n.to_string() };
            fs::write(folder.join(name), bytes).unwrap();
        }
        folder.to_str().unwrap().to_owned()
    }
}

fn open(path: &str) -> OnDisk {
    OnDisk::new(File::open(path).unwrap()).unwrap()
}

fn only(path: &str) -> (Vec<Range<u64>>, FileSystem) {
    let (free, mut found) = free_ranges(&open(path)).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    (free, found.remove(0))
}

fn sum(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

fn same_tree(one: &str, other: &str) {
    let list = |root: &str| {
        let run = run("find", &[root, "-type", "f", "-printf", "%P\n"]);
        run.lines().map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let names = list(one);
    assert!(names.len() >= 20);
    for name in &names {
        let bytes = [one, other].map(|root| fs::read(format!("{root}/{name}")).unwrap());
        assert!(bytes[0] == bytes[1], "{name}");
    }
}

/// Free blocks as `dumpe2fs` lists them, in bytes.
fn told_by_dumpe2fs(path: &str) -> Vec<Range<u64>> {
    let said = run("dumpe2fs", &[path]);
    let block: u64 = said.lines().find_map(|it| it.strip_prefix("Block size:")).unwrap().trim().parse().unwrap();
    let lists = said.lines().filter_map(|line| line.trim().strip_prefix("Free blocks: "));
    let ranges = lists.flat_map(|list| list.split(", ")).filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse::<u64>().ok()? * block..(last.trim().parse::<u64>().ok()? + 1) * block)
    });
    volume::union(ranges.collect())
}

#[test]
fn ext4_is_read_as_its_own_programs_read_it() {
    let Some(bench) = bench() else { return };
    let files = bench.files();
    let kinds: [&[&str]; 6] = [
        &["-t", "ext4"],
        &["-t", "ext4", "-b", "1024"],
        &["-t", "ext4", "-O", "^metadata_csum,uninit_bg"],
        &["-t", "ext4", "-O", "^64bit,^has_journal,^flex_bg"],
        &["-t", "ext3"],
        &["-t", "ext2", "-b", "1024"],
    ];
    for kind in kinds {
        let path = bench.disk("ext", 200 * MIB);
        let fixed = ["-q", "-F", "-E", "nodiscard,lazy_itable_init=0", "-d", &files, &path];
        run("mke2fs", &[kind, &fixed].concat());
        for name in ["5", "8", "below/9", "31"] {
            run("debugfs", &["-w", "-R", &format!("rm {name}"), &path]);
        }
        run("e2fsck", &["-fn", &path]);
        let (free, found) = only(&path);
        assert_eq!((found.kind, found.left_alone), (Some("ext4"), None), "{kind:?}");
        let told = told_by_dumpe2fs(&path);
        assert_eq!(volume::without(&free, &told), [], "{kind:?}");
        let sums = (sum(&free), sum(&told));
        assert!(sums.0 == sums.1 && sums.0 > 100 * MIB, "{kind:?}: {sums:?}");
        let done = sparsify_in_place(path.as_ref(), &Sparsify::default()).unwrap();
        // The journal, inode tables and directories stay.
        assert!(done.after_bytes < 200 * MIB - sum(&free) + MIB, "{kind:?}: {done:?}");
        assert_eq!(File::open(&path).unwrap().metadata().unwrap().len(), 200 * MIB);
        run("e2fsck", &["-fn", &path]);
        let out = bench.path("out");
        fs::create_dir(&out).unwrap();
        run("debugfs", &["-R", &format!("rdump / {out}"), &path]);
        same_tree(&out, &files);
        fs::remove_dir_all(&out).unwrap();
    }
}

/// Free extents as `xfs_db` lists them, in bytes; the few blocks that each group keeps ready are among them.
fn told_by_xfs_db(path: &str) -> Vec<Range<u64>> {
    let number = |field: &str| -> u64 {
        let said = run("xfs_db", &["-r", "-c", "sb 0", "-c", &format!("p {field}"), path]);
        said.split("= ").nth(1).unwrap().trim().parse().unwrap()
    };
    let (block, group) = (number("blocksize"), number("agblocks"));
    let said = run("xfs_db", &["-r", "-c", "freesp -d", path]);
    let rows = said.lines().map_while(|line| {
        let row: Vec<u64> = line.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        (line.trim_start().starts_with("agno") || row.len() == 3).then_some(row)
    });
    let ranges = rows.filter(|row| row.len() == 3).map(|row| {
        let start = row[0] * group + row[1];
        start * block..(start + row[2]) * block
    });
    volume::union(ranges.collect())
}

fn make_xfs(bench: &Bench, kind: &[&str]) -> String {
    let files = bench.files();
    let list = run("find", &[&files, "-type", "f", "-size", "+0", "-printf", "%f\n"]);
    let lines = list.lines().map(|name| {
        let folder = if name.parse::<u32>().unwrap().is_multiple_of(3) { "below/" } else { "" };
        format!("{name} ---644 0 0 {files}/{folder}{name}\n")
    });
    let proto = format!("proto\n0 0\nd--755 0 0\n{}$\n", lines.collect::<String>());
    fs::write(bench.path("proto"), proto).unwrap();
    let path = bench.disk("xfs", 320 * MIB);
    run("mkfs.xfs", &[&["-q", "-f", "-K", "-p", &bench.path("proto")][..], kind, &[&path]].concat());
    path
}

#[test]
fn xfs_is_read_as_its_own_programs_read_it() {
    let Some(bench) = bench() else { return };
    let kinds: [&[&str]; 4] =
        [&[], &["-m", "crc=0"], &["-b", "size=1024"], &["-m", "rmapbt=1,reflink=1", "-d", "agcount=3"]];
    for kind in kinds {
        let path = make_xfs(&bench, kind);
        let before = fs::read(&path).unwrap();
        let (free, found) = only(&path);
        assert_eq!((found.kind, found.left_alone), (Some("xfs"), None), "{kind:?}");
        let told = told_by_xfs_db(&path);
        assert_eq!(volume::without(&free, &told), [], "{kind:?}");
        assert!(sum(&volume::without(&told, &free)) < 9 * 32 * 4096 && sum(&free) > 200 * MIB, "{kind:?}");
        let target = bench.path("copy");
        let done = sparsify(path.as_ref(), target.as_ref(), &Sparsify::default()).unwrap();
        assert!(done.after_bytes < 320 * MIB - sum(&free) + MIB, "{kind:?}: {done:?}");
        run("xfs_repair", &["-n", &target]);
        // Whatever is not free is as it was.
        let after = fs::read(&target).unwrap();
        for range in volume::without(&[0..320 * MIB], &free) {
            let range = range.start as usize..range.end as usize;
            assert!(before[range.clone()] == after[range.clone()], "{kind:?} {range:?}");
        }
        assert!(fs::read(&path).unwrap() == before);
        fs::remove_file(&target).unwrap();
    }
}

#[test]
fn btrfs_is_read_and_its_files_come_back_whole() {
    let Some(bench) = bench() else { return };
    let files = bench.files();
    let kinds: [&[&str]; 4] =
        [&[], &["-m", "single"], &["-M", "-n", "4096"], &["-O", "^no-holes", "-R", "^free-space-tree"]];
    for kind in kinds {
        let path = bench.disk("btrfs", 200 * MIB);
        run("mkfs.btrfs", &[&["-q", "-f", "-K", "--rootdir", &files][..], kind, &[&path]].concat());
        let (free, found) = only(&path);
        assert_eq!((found.kind, found.left_alone), (Some("btrfs"), None), "{kind:?}");
        assert!(sum(&free) > 100 * MIB, "{kind:?}: {} MiB", sum(&free) / MIB);
        let done = sparsify_in_place(path.as_ref(), &Sparsify::default()).unwrap();
        assert!(done.after_bytes < 201 * MIB - sum(&free), "{kind:?}: {done:?}");
        run("btrfs", &["check", "--check-data-csum", &path]);
        let out = bench.path("out");
        fs::create_dir(&out).unwrap();
        run("btrfs", &["restore", &path, &out]);
        same_tree(&out, &files);
        fs::remove_dir_all(&out).unwrap();
    }
}

/// A disk with a GPT and these partitions, in MiB.
fn gpt(disk: &mut Vec<u8>, parts: &[Range<u64>]) {
    let crc = Crc::ethernet();
    let mut table = vec![0; 128 * 128];
    for (n, part) in parts.iter().enumerate() {
        table[128 * n..128 * n + 32].fill(7);
        table[128 * n + 32..128 * n + 40].copy_from_slice(&(part.start * MIB / 512).to_le_bytes());
        table[128 * n + 40..128 * n + 48].copy_from_slice(&(part.end * MIB / 512 - 1).to_le_bytes());
    }
    disk[446 + 4] = 0xee;
    disk[446 + 8..446 + 16].copy_from_slice(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut header = vec![0; 512];
    header[..8].copy_from_slice(b"EFI PART");
    header[12..16].copy_from_slice(&92u32.to_le_bytes());
    header[72..80].copy_from_slice(&2u64.to_le_bytes());
    header[80..84].copy_from_slice(&128u32.to_le_bytes());
    header[84..88].copy_from_slice(&128u32.to_le_bytes());
    header[88..92].copy_from_slice(&crc.of_bytes(&table).to_le_bytes());
    let sum = crc.around(&header[..92], 16);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    disk[512..1024].copy_from_slice(&header);
    disk[1024..1024 + table.len()].copy_from_slice(&table);
}

#[test]
fn partitions_are_found_and_a_qcow2_becomes_smaller() {
    let Some(bench) = bench() else { return };
    let part = bench.disk("part", 60 * MIB);
    run("mke2fs", &["-q", "-F", "-t", "ext4", "-E", "nodiscard", "-d", &bench.files(), &part]);
    let mut disk = vec![0; 100 * MIB as usize];
    gpt(&mut disk, &[1..61, 61..70, 70..80]);
    disk[MIB as usize..61 * MIB as usize].copy_from_slice(&fs::read(&part).unwrap());
    disk[70 * MIB as usize..80 * MIB as usize].fill(0x55);
    disk[61 * MIB as usize..61 * MIB as usize + 6].copy_from_slice(b"LUKS\xba\xbe");
    let raw = bench.path("raw");
    fs::write(&raw, &disk).unwrap();
    let (free, found) = free_ranges(&open(&raw)).unwrap();
    let kinds: Vec<_> = found.iter().map(|it| (it.start_bytes / MIB, it.kind, it.left_alone.is_some())).collect();
    assert_eq!(kinds, [(1, Some("ext4"), false), (61, Some("LUKS"), true), (70, None, false)]);
    assert!(free.iter().all(|range| range.start >= MIB && range.end <= 61 * MIB) && sum(&free) > 40 * MIB);

    let qcow2 = bench.path("disk.qcow2");
    let to = crate::Conversion { to: "qcow2".into(), ..crate::Conversion::default() };
    crate::convert(raw.as_ref(), qcow2.as_ref(), &to).unwrap();
    let copy = bench.path("copy.qcow2");
    let how = Sparsify { compress: true, ..Sparsify::default() };
    let packed = sparsify(qcow2.as_ref(), copy.as_ref(), &how).unwrap();
    let done = sparsify_in_place(qcow2.as_ref(), &Sparsify::default()).unwrap();
    assert!(done.before_bytes > 60 * MIB && done.after_bytes < 40 * MIB, "{done:?}");
    assert!(packed.after_bytes < done.after_bytes && packed.before_bytes == done.before_bytes);
    assert!(crate::compare(qcow2.as_ref(), copy.as_ref()).unwrap().identical);
    let again = bench.path("again");
    crate::convert(qcow2.as_ref(), again.as_ref(), &crate::Conversion { to: "raw".into(), ..to }).unwrap();
    let bytes = fs::read(&again).unwrap();
    for range in volume::without(&[0..100 * MIB], &free) {
        let range = range.start as usize..range.end as usize;
        assert!(bytes[range.clone()] == disk[range.clone()], "{range:?}");
    }
    // A wrong checksum, and an overlap: nothing of the disk is touched but its zeros.
    let mut broken = disk.clone();
    broken[1030] ^= 1;
    let (free, found) = free_ranges(&broken).unwrap();
    assert_eq!(
        (free.len(), found[0].left_alone.as_deref()),
        (0, Some("has a GPT whose entries have a wrong checksum"))
    );
    gpt(&mut disk, &[1..61, 60..70]);
    assert_eq!(free_ranges(&disk).unwrap().1[0].left_alone.as_deref(), Some("has partitions that overlap"));
}

#[test]
fn what_may_be_left_of_an_earlier_use_is_not_believed() {
    let Some(bench) = bench() else { return };
    let path = bench.disk("part", 60 * MIB);
    run("mke2fs", &["-q", "-F", "-t", "ext4", &path]);
    let disk = fs::read(&path).unwrap();
    let left_alone = |disk: &Vec<u8>| {
        let (free, found) = free_ranges(disk).unwrap();
        assert!(free.is_empty() && found.len() == 1, "{found:?}");
        found[0].left_alone.clone().unwrap()
    };
    assert!(!free_ranges(&disk).unwrap().0.is_empty());
    // Partitions on a disk that was one file system, and the other way round.
    let mut both = disk.clone();
    both[446 + 4] = 0x83;
    both[446 + 8..446 + 16].copy_from_slice(&[0, 8, 0, 0, 0, 8, 0, 0]);
    both[510..512].copy_from_slice(&[0x55, 0xaa]);
    assert!(left_alone(&both).contains("partitions and of a file system"));
    let mut both = disk.clone();
    let superblock = both[1024..2048].to_vec();
    gpt(&mut both, &[1..59]);
    let mut header = both[512..1024].to_vec();
    // The table lies elsewhere, so that the superblock is still whole.
    header[72..80].copy_from_slice(&64u64.to_le_bytes());
    let sum = Crc::ethernet().around(&header[..92], 16);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    both.copy_within(1024..1024 + 128 * 128, 64 * 512);
    both[512..1024].copy_from_slice(&header);
    both[1024..2048].copy_from_slice(&superblock);
    assert!(left_alone(&both).contains("partitions and of a file system"));
    // A GPT that nothing but its own marks speaks for: the disk has got a table of the older kind since.
    both[446 + 4] = 0x83;
    assert!(left_alone(&both).contains("does not know of"));
    // Another file system, whose maker did not wipe the superblock.
    let mut both = disk.clone();
    both[3..11].copy_from_slice(b"NTFS    ");
    assert!(left_alone(&both).contains("several kinds"));
}

#[test]
fn an_mbr_leads_to_its_logical_partitions() {
    let mut disk = vec![0u8; 8 << 20];
    let table = |disk: &mut [u8], at: usize, entries: &[(u8, u32, u32)]| {
        for (n, (kind, start, sectors)) in entries.iter().enumerate() {
            let at = at + 446 + 16 * n;
            disk[at + 4] = *kind;
            disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            disk[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
        }
        disk[at + 510..at + 512].copy_from_slice(&[0x55, 0xaa]);
    };
    table(&mut disk, 0, &[(0x83, 2048, 2048), (0x05, 4096, 8192)]);
    table(&mut disk, 4096 * 512, &[(0x83, 64, 1000), (0x05, 2048, 2048)]);
    table(&mut disk, 6144 * 512, &[(0x83, 64, 1000)]);
    let parts = |disk: &Vec<u8>| partition::partitions(&Volume::new(disk, 0, disk.len() as u64));
    let sectors: Vec<_> = parts(&disk).unwrap().into_iter().map(|it| it.start / 512..it.end / 512).collect();
    assert_eq!(sectors, [2048..4096, 4160..5160, 6208..7208]);
    // A chain that leads back to itself ends, too.
    table(&mut disk, 6144 * 512, &[(0x83, 64, 1000), (0x05, 2048, 2048)]);
    assert!(matches!(parts(&disk), Err(Left::Alone(why)) if why.contains("too many logical")));
}

#[test]
fn what_was_not_unmounted_is_left_alone() {
    let Some(bench) = bench() else { return };
    let ext4 = bench.disk("ext", 64 * MIB);
    run("mke2fs", &["-q", "-F", "-t", "ext4", &ext4]);
    run("debugfs", &["-w", "-R", "feature needs_recovery", &ext4]);
    let xfs = make_xfs(&bench, &[]);
    let mut bytes = fs::read(&xfs).unwrap();
    // The flag of the unmount record goes: as if the machine had lost its power.
    let record = (0..bytes.len()).step_by(512).find(|at| bytes[*at..at + 4] == [0xfe, 0xed, 0xba, 0xbe]).unwrap();
    assert_eq!(bytes[record + 512 + 9], 0x20);
    bytes[record + 512 + 9] = 0;
    fs::write(&xfs, &bytes).unwrap();
    let btrfs = bench.disk("btrfs", 120 * MIB);
    run("mkfs.btrfs", &["-q", "-f", &btrfs]);
    let mut top = vec![0; 4096];
    let file = File::options().read(true).write(true).open(&btrfs).unwrap();
    file.read_exact_at(&mut top, 65536).unwrap();
    top[96..104].copy_from_slice(&(30 * MIB).to_le_bytes());
    let sum = Crc::castagnoli().of_bytes(&top[32..]);
    top[..4].copy_from_slice(&sum.to_le_bytes());
    file.write_all_at(&top, 65536).unwrap();
    for path in [ext4, xfs, btrfs] {
        let (free, found) = only(&path);
        assert!(free.is_empty() && found.left_alone.unwrap().contains("was not unmounted"), "{path}");
    }
}

#[test]
fn an_image_in_use_and_one_with_snapshots_are_refused() {
    let Some(bench) = bench() else { return };
    let path = bench.path("disk.qcow2");
    run("qemu-img", &["create", "-q", "-f", "qcow2", &path, "10M"]);
    run("qemu-img", &["snapshot", "-c", "one", &path]);
    let said = |path: &str| sparsify_in_place(path.as_ref(), &Sparsify::default()).unwrap_err().to_string();
    assert!(said(&path).contains("internal snapshots"));
    let raw = bench.disk("raw", MIB);
    let file = File::options().read(true).write(true).open(&raw).unwrap();
    let held = lock::alone(&file, raw.as_ref()).unwrap();
    assert!(said(&raw).contains("in use"));
    let copy = bench.path("copy");
    let refused = sparsify(raw.as_ref(), copy.as_ref(), &Sparsify::default()).unwrap_err();
    assert!(refused.to_string().contains("in use"));
    drop(held);
    sparsify(raw.as_ref(), copy.as_ref(), &Sparsify::default()).unwrap();
}

#[test]
fn zeros_become_holes_and_everything_else_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    // Runs of zeros and of others in odd lengths, an odd end.
    let mut bytes: Vec<u8> = vec![1; 3000];
    for n in 1..60usize {
        bytes.resize(bytes.len() + n * 3777, 0);
        bytes.resize(bytes.len() + n * 511, n as u8);
    }
    fs::write(&path, &bytes).unwrap();
    let copy = folder.path().join("copy");
    let copied = sparsify(&path, &copy, &Sparsify::default()).unwrap();
    let punched = sparsify_in_place(&path, &Sparsify::default()).unwrap();
    assert!(fs::read(&path).unwrap() == bytes && fs::read(&copy).unwrap() == bytes);
    for done in [copied, punched] {
        assert!(done.after_bytes * 3 < done.before_bytes, "{done:?}");
    }
}

/// A small generator, so that a failure is found again.
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

/// Changes numbers in `places`, and asks after each change; how often something was left alone. `block` says in which
/// block with a checksum a place lies: it is made right again.
fn tamper(
    disk: &mut Vec<u8>,
    rounds: u32,
    places: &[Range<usize>],
    block: &dyn Fn(usize) -> Option<Range<usize>>,
) -> usize {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut left_alone = 0;
    for _ in 0..rounds {
        let place = places[chance.next(places.len())].clone();
        let whole = block(place.start).unwrap_or(place.clone());
        let kept = disk[whole.clone()].to_vec();
        for _ in 0..1 + chance.next(3) {
            let at = place.start + chance.next(place.len());
            let length = [1, 2, 4, 8][chance.next(4)].min(place.end - at);
            let value = [0, 1, 0xff, 0x7f, 0x80, chance.next(256) as u8][chance.next(6)];
            disk[at..at + length].fill(value);
        }
        if let Some(block) = block(place.start) {
            let sum = Crc::castagnoli().of_bytes(&disk[block.start + 32..block.end]);
            disk[block.start..block.start + 4].copy_from_slice(&sum.to_le_bytes());
        }
        let (free, found) = free_ranges(disk).unwrap();
        assert!(free.windows(2).all(|pair| pair[0].end < pair[1].start));
        assert!(free.last().is_none_or(|last| last.end <= disk.len() as u64));
        left_alone += usize::from(found.iter().any(|it| it.left_alone.is_some()));
        disk[whole].copy_from_slice(&kept);
    }
    left_alone
}

#[test]
fn tampering_yields_reasons_and_no_panic() {
    let Some(bench) = bench() else { return };
    let ext = bench.disk("ext", 8 * MIB);
    run("mke2fs", &["-q", "-F", "-t", "ext4", "-O", "^metadata_csum,^uninit_bg", "-d", "/usr/share/keyrings", &ext]);
    let mut disk = fs::read(&ext).unwrap();
    assert!(tamper(&mut disk, 1000, &[1024..1160, 1270..1290, 2048..2144], &|_| None) > 200);

    let xfs = make_xfs(&bench, &["-m", "crc=0"]);
    let mut disk = fs::read(&xfs).unwrap();
    let magics: [&[u8]; 3] = [b"XAGF", b"ABTB", b"\xfe\xed\xba\xbe"];
    let tables = (0..disk.len()).step_by(512).filter(|at| magics.contains(&&disk[*at..at + 4]));
    let places: Vec<Range<usize>> = std::iter::once(0..200).chain(tables.map(|at| at..at + 80)).collect();
    assert!(places.len() > 6 && tamper(&mut disk, 150, &places, &|_| None) > 30);

    let btrfs = bench.disk("btrfs", 120 * MIB);
    run("mkfs.btrfs", &["-q", "-f", "-K", "--rootdir", &bench.files(), &btrfs]);
    let mut disk = fs::read(&btrfs).unwrap();
    let fsid = disk[65536 + 32..65536 + 48].to_vec();
    let nodes = (0..disk.len()).step_by(16384).filter(|at| *at != 65536 && disk[at + 32..at + 48] == fsid);
    // Of the trees of roots, extents and chunks: their headers with the first keys, and the items at their ends.
    let nodes = nodes.filter(|at| matches!(disk[at + 88], 1..=3));
    let nodes = nodes.flat_map(|at| [at + 48..at + 400, at + 16384 - 800..at + 16384]);
    let places: Vec<Range<usize>> = std::iter::once(65536 + 48..65536 + 1200).chain(nodes).collect();
    let block = |at: usize| match at / 16384 * 16384 {
        65536 => Some(65536..65536 + 4096),
        node => Some(node..node + 16384),
    };
    let left_alone = tamper(&mut disk, 300, &places, &block);
    assert!(left_alone > 15, "{left_alone} of {} places", places.len());
}
