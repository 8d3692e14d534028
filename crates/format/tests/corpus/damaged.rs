//! Damaged files: QEMU and the inspector refuse the same ones, or the reason why they do not stands here.

use crate::by_hand::partitioned;
use crate::damage::{Edit, damage, *};
use crate::qemu::{Work, is_the_version_of_the_tables, work};
use format::{Decision, Limits, decide, examine};

/// What both make of a file.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    /// Both refuse it.
    Refused,
    /// The inspector refuses what `qemu-img info` opens, and why.
    Stricter(&'static str),
    /// The inspector takes what `qemu-img info` refuses, and why.
    Looser(&'static str),
    /// Both take it: what was changed says nothing.
    Taken,
}
use Fate::*;

type Damaged = (&'static str, &'static [Edit], Fate);

const LAZY: &str = "QEMU reads the tables when a guest asks, and what lies past the end as zeroes";
const FOREIGN: &str = "QEMU opens what is named outside; an image is one self-contained file";
const REPAIR: &str = "QEMU's info opens what its check could repair; nobody repairs an image here";
const FIELD: &str = "QEMU does not look at this field; other readers do";
const ONE: &str = "QEMU looks at the first footer alone; other readers look at the last";
const LOG: &str = "QEMU's info leaves out the log; whoever opens the file for writing replays it first";
const TWICE: &str = "QEMU takes the header of a sparse file and leaves its descriptor out; other readers take that";
const RAW: &str = "QEMU was told that it is LUKS; without its mark it is a raw disk, and was called so";

const QCOW2: &[Damaged] = &[
    ("header cut", &[Cut(60)], Refused),
    ("header cut behind version 2", &[Cut(80)], Refused),
    ("tables cut", &[Cut(65536)], Stricter(LAZY)),
    ("half of it", &[Cut(200_000)], Stricter(LAZY)),
    ("data cut", &[CutEnd(1 << 20)], Stricter(LAZY)),
    ("magic", &[Big32(0, 0x5146_49fc)], Refused),
    ("version 1", &[Big32(4, 1)], Refused),
    ("version 4", &[Big32(4, 4)], Refused),
    ("backing name far away", &[Big64(8, 1 << 40), Big32(16, 5)], Refused),
    ("backing name past 2^63", &[Big64(8, u64::MAX), Big32(16, 5)], Refused),
    ("backing name too long", &[Big64(8, 4096), Big32(16, 5000)], Refused),
    ("backing file", &[Big64(8, 4096), Big32(16, 8), Bytes(4096, b"base.raw")], Stricter(FOREIGN)),
    ("clusters of 256 bytes", &[Big32(20, 8)], Refused),
    ("clusters of 4 MiB", &[Big32(20, 22)], Refused),
    ("clusters of 2^255", &[Big32(20, 255)], Refused),
    ("size for more L1 entries", &[Big64(24, 1 << 40)], Refused),
    ("size 2^63", &[Big64(24, 1 << 63)], Refused),
    ("size 2^64 - 1", &[Big64(24, u64::MAX)], Refused),
    ("unknown encryption", &[Big32(32, 3)], Refused),
    ("LUKS without a key's header", &[Big32(32, 2)], Refused),
    ("no L1 entries", &[Big32(36, 0)], Refused),
    ("2^32 - 1 L1 entries", &[Big32(36, u32::MAX)], Refused),
    ("L1 table not at a cluster", &[Big64(40, 7)], Refused),
    ("L1 table past 2^63", &[Big64(40, 0xffff_ffff_ffff_0000)], Refused),
    ("L1 table past the end", &[Big64(40, 1 << 40)], Stricter(LAZY)),
    ("refcount table not at a cluster", &[Big64(48, 7)], Refused),
    ("refcount table past the end", &[Big64(48, 1 << 40)], Stricter(LAZY)),
    ("no refcount table", &[Big32(56, 0)], Refused),
    ("refcount table of 2^32 - 1 clusters", &[Big32(56, u32::MAX)], Refused),
    ("2^32 - 1 snapshots", &[Big32(60, u32::MAX), Big64(64, 65536)], Refused),
    ("snapshots past the end", &[Big32(60, 2), Big64(64, 1 << 40)], Stricter(REPAIR)),
    ("snapshots in circles", &[Big32(60, 9), Big64(64, 0)], Stricter(REPAIR)),
    ("unknown features", &[Big64(72, 1 << 33)], Refused),
    ("marked corrupt", &[Big64(72, 2)], Stricter(REPAIR)),
    ("data file that nobody names", &[Big64(72, 4)], Stricter(FOREIGN)),
    ("compression unknown", &[Big64(72, 8), Bytes(104, &[9])], Refused),
    ("compression without its feature", &[Bytes(104, &[1])], Refused),
    ("refcounts of 2^7 bits", &[Big32(96, 7)], Refused),
    ("header of 20 bytes", &[Big32(100, 20)], Refused),
    ("header of 2^31 bytes", &[Big32(100, 1 << 31)], Refused),
    ("extension out of the header", &[Bytes(112, &[0, 0, 0, 9, 0xff, 0, 0, 0])], Refused),
    ("L2 table past the end", &[Big64(196_608, (1 << 63) | (1 << 50))], Stricter(LAZY)),
    ("L2 table not at a cluster", &[Big64(196_608, (1 << 63) | 0x4_0200)], Stricter(LAZY)),
    ("L1 table as its own L2 table", &[Big64(196_608, (1 << 63) | 0x3_0000)], Taken),
    ("data past the end", &[Big64(262_144, (1 << 63) | (1 << 50))], Stricter(LAZY)),
    ("dirty", &[Big64(72, 1)], Taken),
];

const VMDK: &[Damaged] = &[
    ("header cut", &[Cut(60)], Refused),
    ("tables cut", &[Cut(20_000)], Refused),
    ("data cut", &[CutEnd(1 << 20)], Stricter(LAZY)),
    ("magic", &[Bytes(0, b"KDMW")], Refused),
    ("version 4", &[Little32(4, 4)], Refused),
    ("no capacity", &[Little64(12, 0)], Refused),
    ("capacity past 2^63", &[Little64(12, 1 << 63)], Refused),
    ("capacity 2^64 - 1", &[Little64(12, u64::MAX)], Refused),
    ("capacity other than told", &[Little64(12, 7000)], Stricter(TWICE)),
    ("no grains", &[Little64(20, 0)], Refused),
    ("grains of 2^40 sectors", &[Little64(20, 1 << 40)], Refused),
    ("descriptor far away", &[Little64(28, 1 << 40)], Stricter(TWICE)),
    ("no entries in a grain table", &[Little32(44, 0)], Refused),
    ("2^32 - 1 entries in a grain table", &[Little32(44, u32::MAX)], Refused),
    ("grain directory far away", &[Little64(48, 1 << 40), Little64(56, 1 << 40)], Stricter(LAZY)),
    ("grain directory told by a footer that is not there", &[Little64(56, u64::MAX)], Refused),
    ("grains behind the end", &[Little64(64, 1 << 40)], Refused),
    ("extent elsewhere", &[Text("\"base.vmdk\"", "\"/etc/host\"")], Stricter(TWICE)),
    ("parent", &[Text("parentCID=ffffffff", "parentCID=12345678")], Stricter(TWICE)),
    ("kind", &[Text("monolithicSparse", "monolithicFlats.")], Stricter(TWICE)),
    ("no descriptor", &[Little64(28, 0), Little64(36, 0)], Stricter(TWICE)),
];

const VDI: &[Damaged] = &[
    ("header cut", &[Cut(100)], Refused),
    ("map cut", &[Cut(513)], Stricter(LAZY)),
    ("data cut", &[CutEnd(1 << 20)], Stricter(LAZY)),
    ("magic", &[Little32(0x40, 7)], Refused),
    ("version 2", &[Little32(0x44, 0x2_0000)], Refused),
    ("version 1.0", &[Little32(0x44, 0x1_0000)], Refused),
    ("kind 4", &[Little32(0x4c, 4)], Stricter(FIELD)),
    ("map not at a sector", &[Little32(0x154, 513)], Refused),
    ("map far away", &[Little32(0x154, 0xffff_fe00)], Stricter(LAZY)),
    ("data not at a sector", &[Little32(0x158, 7)], Refused),
    ("data far away", &[Little32(0x158, 0xffff_fe00)], Stricter(LAZY)),
    ("sectors of 4096", &[Little32(0x168, 4096)], Refused),
    ("size past 2^63", &[Little64(0x170, u64::MAX - 511)], Refused),
    ("size past its blocks", &[Little64(0x170, 1 << 40)], Refused),
    ("blocks of 512 bytes", &[Little32(0x178, 512)], Refused),
    ("2^32 - 1 blocks", &[Little32(0x180, u32::MAX)], Refused),
    ("no blocks", &[Little32(0x180, 0)], Refused),
    ("link", &[Bytes(0x1a8, b"0123456789abcdef")], Refused),
    ("parent", &[Bytes(0x1b8, b"0123456789abcdef")], Refused),
    ("block past the end", &[Little32(512, 0x7fff_ffff)], Stricter(LAZY)),
];

const VHD: &[Damaged] = &[
    ("header cut", &[Cut(300)], Refused),
    ("tables cut", &[Cut(1600)], Refused),
    ("footer cut", &[CutEnd(512)], Stricter(ONE)),
    ("magic", &[Bytes(0, b"connectx"), BytesAtEnd(512, b"connectx")], Refused),
    ("checksum", &[Big32(64, 7)], Refused),
    ("kind 9 at the end", &[BytesAtEnd(452, &[0, 0, 0, 9])], Stricter(ONE)),
    ("kind 4", &[Big32(60, 4), BytesAtEnd(452, &[0, 0, 0, 4]), VhdSums], Stricter(FIELD)),
    ("kind 7", &[Big32(60, 7), BytesAtEnd(452, &[0, 0, 0, 7]), VhdSums], Stricter(FIELD)),
    ("header far away", &[Big64(16, 1 << 40), BytesAtEnd(496, &[0, 0, 1, 0, 0, 0, 0, 0]), VhdSums], Refused),
    ("header past 2^63", &[Big64(16, u64::MAX), BytesAtEnd(496, &[0xff; 8]), VhdSums], Refused),
    ("header's magic", &[Bytes(512, b"cxsparze"), VhdSums], Refused),
    ("header's checksum", &[Big32(548, 7)], Stricter(FIELD)),
    ("table far away", &[Big64(528, 1 << 40), VhdSums], Refused),
    ("no table", &[Big32(540, 0), VhdSums], Refused),
    ("table of 2^32 - 1", &[Big32(540, u32::MAX), VhdSums], Refused),
    ("no block size", &[Big32(544, 0), VhdSums], Refused),
    ("blocks of 3 MiB", &[Big32(544, 3 << 20), VhdSums], Refused),
    ("block past the end", &[Big32(1536, 0x7fff_ffff)], Refused),
    ("size of 4 TiB", &[Big64(48, 4 << 40), BytesAtEnd(464, &[0, 0, 4, 0, 0, 0, 0, 0]), VhdSums], Refused),
    ("size of 2^64 - 1", &[Big64(48, u64::MAX), BytesAtEnd(464, &[0xff; 8]), VhdSums], Refused),
];

const VHDX: &[Damaged] = &[
    ("header cut", &[Cut(60)], Refused),
    ("headers cut", &[Cut(70_000)], Refused),
    ("regions cut", &[Cut(1 << 20)], Refused),
    ("metadata cut", &[Cut(3 << 20)], Refused),
    ("data cut", &[CutEnd(8 << 20)], Refused),
    ("magic", &[Bytes(0, b"vhdxfiel")], Refused),
    ("both headers", &[Bytes(65536, b"haed"), Bytes(131_072, b"haed")], Refused),
    ("both headers' checksums", &[Little32(65540, 7), Little32(131_076, 7)], Refused),
    ("one header", &[Bytes(65536, b"haed")], Taken),
    ("headers of one number", &[Little64(65544, 5), Little64(131_080, 5), VhdxSums], Refused),
    ("version 2", &[Little16(65602, 2), Little16(131_138, 2), VhdxSums], Refused),
    ("a log", &[Bytes(65584, b"0123456789abcdef"), Bytes(131_120, b"0123456789abcdef"), VhdxSums], Stricter(LOG)),
    ("both region tables", &[Bytes(196_608, b"rigi"), Bytes(262_144, b"rigi")], Refused),
    ("region tables' checksums", &[Little32(196_612, 7), Little32(262_148, 7)], Refused),
    ("no regions", &[Little32(196_616, 0), Little32(262_152, 0), VhdxSums], Refused),
    ("9999 regions", &[Little32(196_616, 9999), Little32(262_152, 9999), VhdxSums], Refused),
    ("regions over one another", &[Little64(196_640, 3 << 20), Little64(262_176, 3 << 20), VhdxSums], Refused),
    ("region past 2^63", &[Little64(196_672, 0xffff_ffff_fff0_0000), VhdxSums], Refused),
    ("unknown region", &[Bytes(196_656, b"0123456789abcdef"), VhdxSums], Refused),
    ("metadata's magic", &[Bytes(3 << 20, b"metadate")], Refused),
    ("no metadata", &[Little16((3 << 20) + 10, 0)], Refused),
];

const PLOOP: &[Damaged] = &[
    ("header cut", &[Cut(40)], Stricter(LAZY)),
    ("table cut", &[Cut(66)], Stricter(LAZY)),
    ("data cut", &[CutEnd(1 << 20)], Stricter(LAZY)),
    ("magic", &[Bytes(0, b"WithoutFreeSpice")], Refused),
    ("version 3", &[Little32(16, 3)], Refused),
    ("no block size", &[Little32(28, 0)], Refused),
    ("blocks of 2^32 - 1 sectors", &[Little32(28, u32::MAX)], Refused),
    ("table of 2^32 - 1", &[Little32(32, u32::MAX)], Refused),
    ("table too short", &[Little32(32, 1)], Stricter(LAZY)),
    ("size past 2^63", &[Little64(36, 1 << 60)], Refused),
    ("size 2^64 - 1", &[Little64(36, u64::MAX)], Refused),
    ("not closed", &[Little32(44, 0x746f_6e59)], Stricter(REPAIR)),
    ("block past the end", &[Little32(64, 0x7fff_ffff)], Stricter(LAZY)),
];

const LUKS: &[Damaged] = &[
    ("header cut", &[Cut(100)], Refused),
    ("key slots cut", &[Cut(300)], Refused),
    ("magic: bytes as any others", &[Bytes(0, b"LUCS")], Looser(RAW)),
    ("version 2", &[Bytes(6, &[0, 2])], Refused),
    ("version 9", &[Bytes(6, &[0, 9])], Refused),
    ("cipher", &[Bytes(8, b"rot13\0")], Refused),
    ("data far away", &[Big32(104, u32::MAX)], Refused),
];

/// How many files are refused by one alone, for the reasons told in docs/compat/image.md.
fn check(name: &str, driver: &str, declared: &str, make: impl FnOnce(&Work), table: &[Damaged]) {
    let Some(work) = work(&format!("damaged-{name}")) else { return };
    make(&work);
    let base = std::fs::read(work.path("base")).expect("made");
    let exact = is_the_version_of_the_tables();
    let mut wrong = Vec::new();
    for (n, (what, edits, expected)) in table.iter().enumerate() {
        let file = damage(base.clone(), edits);
        let name = format!("{n}.damaged");
        std::fs::write(work.path(&name), &file).expect("written");
        let ours = match decide(declared, "bare", &examine(&file).expect("a slice reads"), &Limits::default()) {
            Decision::Accept(accepted) => Ok(accepted),
            Decision::Refuse(why) => Err(why),
        };
        let theirs = work.info(&name, driver);
        let agrees = match expected {
            Refused => ours.is_err() && theirs.is_err(),
            Stricter(_) => ours.is_err() && (theirs.is_ok() || !exact),
            Looser(_) => ours.is_ok() && (theirs.is_err() || !exact),
            Taken => ours.is_ok() && theirs.is_ok(),
        };
        if !agrees {
            let theirs = theirs.map(|info| info["virtual-size"].clone());
            wrong.push(format!("{what}: expected {expected:?}, ours {ours:?}, QEMU {theirs:?}"));
        }
        let _ = std::fs::remove_file(work.path(&name));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A disk with data in its second MiB.
fn source(work: &Work) {
    let mut raw = partitioned(3 << 20, &[0x83], None);
    raw[1 << 20..2 << 20].fill(7);
    std::fs::write(work.path("base.raw"), raw).expect("written");
}

fn converted<'a>(format: &'a str) -> impl FnOnce(&Work) + 'a {
    move |work| {
        source(work);
        work.make(&format!("convert -O {format} base.raw $"), "base.vmdk");
        std::fs::rename(work.path("base.vmdk"), work.path("base")).expect("renamed");
    }
}

#[test]
fn qcow2() {
    check("qcow2", "qcow2", "qcow2", converted("qcow2"), QCOW2);
}

#[test]
fn vmdk() {
    check("vmdk", "vmdk", "vmdk", converted("vmdk"), VMDK);
}

#[test]
fn vdi() {
    check("vdi", "vdi", "vdi", converted("vdi"), VDI);
}

#[test]
fn vhd() {
    check("vhd", "vpc", "vhd", converted("vpc -o force_size=on"), VHD);
}

#[test]
fn vhdx() {
    check("vhdx", "vhdx", "vhdx", converted("vhdx"), VHDX);
}

#[test]
fn ploop() {
    check("ploop", "parallels", "ploop", converted("parallels"), PLOOP);
}

#[test]
fn luks() {
    let options = "create -f luks --object secret,id=s,data=abc -o key-secret=s,iter-time=10 $ 1M";
    check("luks", "luks", "raw", |work| work.make(options, "base"), LUKS);
}
