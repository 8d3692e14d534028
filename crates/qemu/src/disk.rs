//! Disks as QEMU is told of them: the same words on a command line and in the monitor.
//!
//! Every file is an open descriptor in a set; a qcow2 layer's backing is always said, so that no name inside a file is
//! ever followed.

use serde_json::{Value, json};
use std::os::fd::OwnedFd;

/// The characters of a serial number that virtio shows.
const SERIAL_CHARS: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Raw,
    Qcow2,
}

impl Format {
    pub fn driver(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
        }
    }
}

/// One layer of a disk: a format over an open file, and what lies below.
pub struct DiskSource {
    /// At most 31 letters, digits and dashes, beginning with a letter; none: nobody asks for this layer.
    pub node: Option<String>,
    pub format: Format,
    pub file: OwnedFd,
    pub read_only: bool,
    pub backing: Option<Box<DiskSource>>,
}

/// A disk and the device that shows it.
pub struct Disk {
    /// Names the device (`disk-NAME`), and the node where its source has no name: letters, digits and dashes.
    pub name: String,
    /// The serial number that the guest sees, cut to what virtio shows.
    pub serial: String,
    pub source: DiskSource,
    /// The lowest is tried first; none: not booted from.
    pub boot_index: Option<u32>,
    /// The slot that it is plugged into, and can be taken out of; none: fixed.
    pub slot: Option<u8>,
}

impl DiskSource {
    /// The node. `put` takes each file and answers the path by which QEMU opens it.
    pub fn describe(self, put: &mut dyn FnMut(OwnedFd) -> String) -> Value {
        let path = put(self.file);
        let mut node = json!({
            "driver": self.format.driver(),
            "read-only": self.read_only,
            "file": {"driver": "file", "filename": path, "read-only": self.read_only, "auto-read-only": false},
        });
        if !self.read_only {
            node["discard"] = json!("unmap");
            node["file"]["discard"] = json!("unmap");
        }
        if let Some(name) = self.node {
            node["node-name"] = json!(name);
        }
        if self.format == Format::Qcow2 {
            node["backing"] = match self.backing {
                Some(below) => below.describe(put),
                None => Value::Null,
            };
        }
        node
    }
}

/// A device, in the order in which its properties are written.
pub(crate) struct Device(pub Vec<(&'static str, Value)>);

impl Device {
    /// `driver,key=value,…`
    pub fn words(&self) -> String {
        let word = |(key, value): &(&str, Value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if *key == "driver" { text } else { format!("{key}={text}") }
        };
        self.0.iter().map(word).collect::<Vec<_>>().join(",")
    }

    pub fn arguments(&self) -> Value {
        self.0.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
    }
}

impl Disk {
    /// The names of the device and of the topmost node.
    pub(crate) fn node(&self) -> String {
        self.source.node.clone().unwrap_or_else(|| self.name.clone())
    }

    pub(crate) fn device(&self) -> Device {
        let serial: String = self.serial.chars().take(SERIAL_CHARS).collect();
        let mut words = vec![
            ("driver", json!("virtio-blk-pci")),
            ("id", json!(device(&self.name))),
            ("drive", json!(self.node())),
            ("serial", json!(serial)),
            // A host's disk that is full holds the guest until there is room; whatever else goes wrong is the guest's
            // to see.
            ("werror", json!("enospc")),
            ("rerror", json!("report")),
        ];
        words.extend(self.slot.map(|slot| ("bus", json!(bus(slot)))));
        words.extend(self.boot_index.map(|index| ("bootindex", json!(index + 1))));
        Device(words)
    }

    /// The node, under its name.
    pub(crate) fn describe(self, put: &mut dyn FnMut(OwnedFd) -> String) -> Value {
        let name = self.node();
        let mut node = self.source.describe(put);
        node["node-name"] = json!(name);
        node
    }
}

/// The id of a disk's device.
pub fn device(name: &str) -> String {
    format!("disk-{name}")
}

/// The slots of a machine into which disks can be plugged while it runs.
pub const SLOTS: u8 = 16;

/// The bus behind a slot.
fn bus(slot: u8) -> String {
    format!("slot{slot}")
}

/// The ports that make the slots, at the end of the first bus: what stands before them keeps its place.
pub(crate) fn ports() -> impl Iterator<Item = String> {
    (0..SLOTS).map(|slot| {
        let (device, function) = (0x1d + slot / 8, slot % 8);
        let number = slot + 1;
        format!(
            "pcie-root-port,id={},chassis={number},slot={number},addr={device:#x}.{function},multifunction=on,\
             io-reserve=0",
            bus(slot)
        )
    })
}
