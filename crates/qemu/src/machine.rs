//! A machine as QEMU's command line.
//!
//! q35 (PCI Express, boots as fast as `pc` under TCG), virtio everything, no default devices, no display window, no
//! file names: disks and logs are inherited descriptors in sets, sockets are made by the caller. The machine starts
//! stopped (`-S`) and stays when its guest powers off (`shutdown=pause`): whether a guest ended by itself can then be
//! asked, also by an agent that was not there when it happened.

use crate::Accel;
use crate::disk::{self, Disk};
use std::os::fd::{AsRawFd, OwnedFd};

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
    /// Whether it offers its memory to the kernel to be held once with that of others; none: as QEMU does by itself.
    pub share_memory: Option<bool>,
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
}

impl Machine {
    pub fn command_line(self) -> CommandLine {
        let mut line = Builder { args: Vec::new(), files: self.keep, sets: 0 };
        line.args.extend(["-no-user-config".into(), "-nodefaults".into(), "-S".into()]);
        line.arg("-name", format!("guest={},debug-threads=off", self.name));
        line.arg("-uuid", &self.uuid);
        let share = match self.share_memory {
            None => "",
            Some(true) => ",mem-merge=on",
            Some(false) => ",mem-merge=off",
        };
        line.arg("-machine", format!("q35,usb=off,vmport=off,dump-guest-core=off,hpet=off{share}"));
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
        for port in disk::ports() {
            line.arg("-device", port);
        }
        for disk in self.disks {
            line.disk(disk);
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
    fn disk(&mut self, disk: Disk) {
        let device = disk.device().words();
        let node = disk.describe(&mut |file| self.set(file));
        self.arg("-blockdev", node.to_string());
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
    use crate::disk::{DiskSource, Format};
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
            share_memory: Some(true),
            disks: vec![Disk {
                name: "root".into(),
                serial: "root".into(),
                boot_index: Some(0),
                slot: None,
                source: DiskSource {
                    node: None,
                    format: Format::Qcow2,
                    file: file(),
                    read_only: false,
                    backing: Some(Box::new(DiskSource {
                        node: None,
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
            -machine q35,usb=off,vmport=off,dump-guest-core=off,hpet=off,mem-merge=on
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
            -device pcie-root-port,id=slot0,chassis=1,slot=1,addr=0x1d.0,multifunction=on,io-reserve=0
            -device pcie-root-port,id=slot1,chassis=2,slot=2,addr=0x1d.1,multifunction=on,io-reserve=0
            -device pcie-root-port,id=slot2,chassis=3,slot=3,addr=0x1d.2,multifunction=on,io-reserve=0
            -device pcie-root-port,id=slot3,chassis=4,slot=4,addr=0x1d.3,multifunction=on,io-reserve=0
            -device pcie-root-port,id=slot4,chassis=5,slot=5,addr=0x1d.4,multifunction=on,io-reserve=0
            -device pcie-root-port,id=slot5,chassis=6,slot=6,addr=0x1d.5,multifunction=on,io-reserve=0
            -device pcie-root-port,id=slot6,chassis=7,slot=7,addr=0x1d.6,multifunction=on,io-reserve=0
            -device pcie-root-port,id=slot7,chassis=8,slot=8,addr=0x1d.7,multifunction=on,io-reserve=0
            -device pcie-root-port,id=slot8,chassis=9,slot=9,addr=0x1e.0,multifunction=on,io-reserve=0
            -device pcie-root-port,id=slot9,chassis=10,slot=10,addr=0x1e.1,multifunction=on,io-reserve=0
            -device pcie-root-port,id=slot10,chassis=11,slot=11,addr=0x1e.2,multifunction=on,io-reserve=0
            -device pcie-root-port,id=slot11,chassis=12,slot=12,addr=0x1e.3,multifunction=on,io-reserve=0
            -device pcie-root-port,id=slot12,chassis=13,slot=13,addr=0x1e.4,multifunction=on,io-reserve=0
            -device pcie-root-port,id=slot13,chassis=14,slot=14,addr=0x1e.5,multifunction=on,io-reserve=0
            -device pcie-root-port,id=slot14,chassis=15,slot=15,addr=0x1e.6,multifunction=on,io-reserve=0
            -device pcie-root-port,id=slot15,chassis=16,slot=16,addr=0x1e.7,multifunction=on,io-reserve=0
            -add-fd fd=<4>,set=2
            -add-fd fd=<5>,set=3
            -blockdev {"backing":{"backing":null,"driver":"qcow2","file":{"auto-read-only":false,"driver":"file","filename":"/dev/fdset/3","read-only":true},"read-only":true},"discard":"unmap","driver":"qcow2","file":{"auto-read-only":false,"discard":"unmap","driver":"file","filename":"/dev/fdset/2","read-only":false},"node-name":"root","read-only":false}
            -device virtio-blk-pci,id=disk-root,drive=root,serial=root,werror=enospc,rerror=report,bootindex=1
            -netdev tap,id=nic0,fd=<6>,vhost=off
            -device virtio-net-pci,id=nic-nic0,netdev=nic0,mac=fa:16:3e:00:00:01,host_mtu=1450,romfile=
            -incoming fd:<7>"#]].assert_eq(&shown(&line));
    }
}
