//! A machine as QEMU's command line.
//!
//! q35 (PCI Express, boots as fast as `pc` under TCG), virtio everything, no default devices, no display window, no
//! file names: disks and logs are inherited descriptors in sets, sockets are made by the caller. The machine starts
//! stopped (`-S`) and stays when its guest powers off (`shutdown=pause`): whether a guest ended by itself can then be
//! asked, also by an agent that was not there when it happened.

use crate::Accel;
use serde_json::{Value, json};
use std::fmt::Write;
use std::os::fd::{AsRawFd, OwnedFd};

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
    pub format: Format,
    pub file: OwnedFd,
    pub read_only: bool,
    pub backing: Option<Box<DiskSource>>,
}

pub struct Disk {
    /// Names the block node and the device, and is the serial number the guest sees: letters, digits and dashes.
    pub name: String,
    pub source: DiskSource,
    pub bootable: bool,
}

pub struct NicDevice {
    /// Names the device: letters, digits and dashes.
    pub name: String,
    pub mac: String,
    pub mtu: u16,
    pub tap: OwnedFd,
}

/// All of a machine. The sockets listen already; QEMU accepts one connection at a time on each.
pub struct Machine {
    /// Stands in the command line, and finds the process again.
    pub name: String,
    pub uuid: String,
    pub accel: Accel,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disks: Vec<Disk>,
    pub nics: Vec<NicDevice>,
    pub qmp: OwnedFd,
    pub serial: OwnedFd,
    /// Opened for appending.
    pub console_log: OwnedFd,
    /// Saved memory to come up from, as a stream.
    pub incoming: Option<OwnedFd>,
    /// Kept open as long as the process lives, such as a locked file.
    pub keep: Vec<OwnedFd>,
}

/// A command line and the descriptors that it names by their numbers in this process.
pub struct CommandLine {
    pub args: Vec<String>,
    pub files: Vec<OwnedFd>,
}

struct Builder {
    args: Vec<String>,
    files: Vec<OwnedFd>,
    sets: u32,
}

impl Builder {
    fn arg(&mut self, option: &str, value: impl Into<String>) {
        self.args.push(option.to_owned());
        self.args.push(value.into());
    }

    fn inherit(&mut self, file: OwnedFd) -> i32 {
        let number = file.as_raw_fd();
        self.files.push(file);
        number
    }

    /// Puts a file into a set of its own, whose name is opened like a path.
    fn set(&mut self, file: OwnedFd) -> String {
        self.sets += 1;
        let (number, set) = (self.inherit(file), self.sets);
        self.arg("-add-fd", format!("fd={number},set={set}"));
        format!("/dev/fdset/{set}")
    }

    fn source(&mut self, source: DiskSource) -> Value {
        let path = self.set(source.file);
        let mut node = json!({
            "driver": source.format.driver(),
            "read-only": source.read_only,
            "file": {"driver": "file", "filename": path, "read-only": source.read_only, "auto-read-only": false},
        });
        if !source.read_only {
            node["discard"] = json!("unmap");
            node["file"]["discard"] = json!("unmap");
        }
        if source.format == Format::Qcow2 {
            // Always said, so that no name inside the file is ever followed.
            node["backing"] = match source.backing {
                Some(below) => self.source(*below),
                None => Value::Null,
            };
        }
        node
    }
}

impl Machine {
    pub fn command_line(self) -> CommandLine {
        let mut line = Builder { args: Vec::new(), files: self.keep, sets: 0 };
        line.args.extend(["-no-user-config".into(), "-nodefaults".into(), "-S".into()]);
        line.arg("-name", format!("guest={},debug-threads=off", self.name));
        line.arg("-uuid", &self.uuid);
        line.arg("-machine", "q35,usb=off,vmport=off,dump-guest-core=off,hpet=off");
        line.arg("-accel", self.accel.name());
        line.arg("-cpu", if self.accel == Accel::Kvm { "host" } else { "max" });
        line.arg("-smp", format!("cpus={0},sockets=1,cores={0},threads=1", self.vcpus));
        line.arg("-m", format!("size={}M", self.memory_mib));
        line.arg("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        line.arg("-action", "shutdown=pause,reboot=reset,panic=none");
        line.arg("-rtc", "base=utc");
        line.arg("-msg", "timestamp=on");
        line.arg("-display", "none");
        // No listener: a console is a connected socket that the agent hands over (`add_client`).
        line.arg("-vnc", "none");
        line.arg("-device", "VGA,romfile=vgabios-stdvga.bin");
        line.arg("-object", "rng-random,id=entropy,filename=/dev/urandom");
        line.arg("-device", "virtio-rng-pci,rng=entropy");
        line.arg("-device", "virtio-balloon-pci");

        let qmp = line.inherit(self.qmp);
        line.arg("-chardev", format!("socket,id=qmp,fd={qmp},server=on,wait=off"));
        line.arg("-mon", "chardev=qmp,mode=control");
        let log = line.set(self.console_log);
        let serial = line.inherit(self.serial);
        line.arg("-chardev", format!("socket,id=serial,fd={serial},server=on,wait=off,logfile={log},logappend=on"));
        line.arg("-device", "isa-serial,chardev=serial");
        for (at, disk) in self.disks.into_iter().enumerate() {
            line.disk(at, disk);
        }
        for nic in self.nics {
            line.nic(nic);
        }
        if let Some(incoming) = self.incoming {
            let number = line.inherit(incoming);
            line.arg("-incoming", format!("fd:{number}"));
        }
        CommandLine { args: line.args, files: line.files }
    }
}

impl Builder {
    fn disk(&mut self, at: usize, disk: Disk) {
        let mut node = self.source(disk.source);
        node["node-name"] = json!(disk.name);
        self.arg("-blockdev", node.to_string());
        let mut device = format!("virtio-blk-pci,id=disk-{0},drive={0},serial={0}", disk.name);
        if disk.bootable {
            let _ = write!(device, ",bootindex={}", at + 1);
        }
        self.arg("-device", device);
    }

    fn nic(&mut self, nic: NicDevice) {
        let tap = self.inherit(nic.tap);
        let NicDevice { name, mac, mtu, .. } = nic;
        self.arg("-netdev", format!("tap,id={name},fd={tap},vhost=off"));
        self.arg(
            "-device",
            // No boot from the network: its ROM costs time, and nothing answers.
            format!("virtio-net-pci,id=nic-{name},netdev={name},mac={mac},host_mtu={mtu},romfile="),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn file() -> OwnedFd {
        tempfile::tempfile().unwrap().into()
    }

    /// Descriptor numbers differ from run to run.
    fn shown(line: &CommandLine) -> String {
        let mut text = line.args.join(" ").replace(" -", "\n-");
        for (at, file) in line.files.iter().enumerate() {
            text = text.replace(&format!("fd={},", file.as_raw_fd()), &format!("fd=<{at}>,"));
            text = text.replace(&format!("fd:{}", file.as_raw_fd()), &format!("fd:<{at}>"));
        }
        text
    }

    #[test]
    fn a_machine_with_everything() {
        let machine = Machine {
            name: "nubo-0a1b2c3d-id@host".into(),
            uuid: "5f2b0a6e-0001-4000-8000-000000000001".into(),
            accel: Accel::Tcg,
            vcpus: 2,
            memory_mib: 128,
            disks: vec![Disk {
                name: "root".into(),
                bootable: true,
                source: DiskSource {
                    format: Format::Qcow2,
                    file: file(),
                    read_only: false,
                    backing: Some(Box::new(DiskSource {
                        format: Format::Qcow2,
                        file: file(),
                        read_only: true,
                        backing: None,
                    })),
                },
            }],
            nics: vec![NicDevice { name: "nic0".into(), mac: "fa:16:3e:00:00:01".into(), mtu: 1450, tap: file() }],
            qmp: file(),
            serial: file(),
            console_log: file(),
            incoming: Some(file()),
            keep: vec![file()],
        };
        let line = machine.command_line();
        assert_eq!(line.files.len(), 8);
        expect![[r#"
            -no-user-config
            -nodefaults
            -S
            -name guest=nubo-0a1b2c3d-id@host,debug-threads=off
            -uuid 5f2b0a6e-0001-4000-8000-000000000001
            -machine q35,usb=off,vmport=off,dump-guest-core=off,hpet=off
            -accel tcg
            -cpu max
            -smp cpus=2,sockets=1,cores=2,threads=1
            -m size=128M
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
            -action shutdown=pause,reboot=reset,panic=none
            -rtc base=utc
            -msg timestamp=on
            -display none
            -vnc none
            -device VGA,romfile=vgabios-stdvga.bin
            -object rng-random,id=entropy,filename=/dev/urandom
            -device virtio-rng-pci,rng=entropy
            -device virtio-balloon-pci
            -chardev socket,id=qmp,fd=<1>,server=on,wait=off
            -mon chardev=qmp,mode=control
            -add-fd fd=<2>,set=1
            -chardev socket,id=serial,fd=<3>,server=on,wait=off,logfile=/dev/fdset/1,logappend=on
            -device isa-serial,chardev=serial
            -add-fd fd=<4>,set=2
            -add-fd fd=<5>,set=3
            -blockdev {"backing":{"backing":null,"driver":"qcow2","file":{"auto-read-only":false,"driver":"file","filename":"/dev/fdset/3","read-only":true},"read-only":true},"discard":"unmap","driver":"qcow2","file":{"auto-read-only":false,"discard":"unmap","driver":"file","filename":"/dev/fdset/2","read-only":false},"node-name":"root","read-only":false}
            -device virtio-blk-pci,id=disk-root,drive=root,serial=root,bootindex=1
            -netdev tap,id=nic0,fd=<6>,vhost=off
            -device virtio-net-pci,id=nic-nic0,netdev=nic0,mac=fa:16:3e:00:00:01,host_mtu=1450,romfile=
            -incoming fd:<7>"#]].assert_eq(&shown(&line));
    }
}
