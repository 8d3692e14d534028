//! Guests: what one shall be, and what it is.

use crate::{GuestVolume, GuestVolumeObserved, ImageSource};
use base::{FlavorId, HostName, ImageId, NetworkId, PortId, ProjectId, ServerId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A guest as it shall be. `generation` rises with every change of it; an agent refuses a lower one than it has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestSpec {
    pub id: ServerId,
    pub generation: u64,
    pub power: DesiredPower,
    /// The generation in which something was last asked of its power. A guest that stopped by itself since then stays
    /// so, whatever else of it changes.
    #[serde(default)]
    pub power_generation: u64,
    /// Where it shall be stopped: without asking it first. Its owner is done with it.
    #[serde(default)]
    pub at_once: bool,
    /// How many reboots have been asked for, ever. The agent performs the difference to its ledger, once.
    pub soft_reboots: u64,
    pub hard_reboots: u64,
    pub vcpus: u32,
    pub memory_mib: u64,
    /// None: it boots from a volume.
    #[serde(default)]
    pub root: Option<RootDisk>,
    /// Volumes that shall be in it. A change of a running guest is carried out while it runs.
    #[serde(default)]
    pub volumes: Vec<GuestVolume>,
    pub nics: Vec<Nic>,
    pub on_crash: OnCrash,
    /// Attach a config drive (ISO 9660, label `config-2`, as virtio-blk).
    pub config_drive: bool,
    pub metadata: InstanceMetadata,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DesiredPower {
    Running,
    Stopped,
    Paused,
    /// Memory saved to disk, process gone.
    Suspended,
    /// Guest, disks and files removed; answered by an observation of [`ObservedPower::Absent`].
    Absent,
}

/// What happens to a guest whose process ends without having been asked to (extra spec `nubo:on_crash`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCrash {
    #[default]
    Stop,
    Restart,
}

/// A root disk: a qcow2 overlay over an image, as large as the flavor says (0: as large as the image).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootDisk {
    pub image: ImageId,
    pub format: DiskFormat,
    /// SHA-512 of the image's bytes, hex: the content address under which a host keeps it.
    pub sha512: String,
    /// Bytes of the image file.
    pub image_bytes: u64,
    pub size_gib: u64,
    /// It shall hold all of its data itself, so that the image can go. It never stands on the image again.
    #[serde(default)]
    pub flat: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    Raw,
    Qcow2,
}

impl DiskFormat {
    /// Glance's `disk_format`.
    pub fn as_str(self) -> &'static str {
        match self {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nic {
    pub port: PortId,
    pub network: NetworkId,
    pub mac: String,
    pub mtu: u16,
}

/// What the metadata service and the config drive tell a guest. The host renders both forms (OpenStack, EC2).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceMetadata {
    pub uuid: ServerId,
    pub name: String,
    pub hostname: String,
    pub project_id: ProjectId,
    pub user_id: UserId,
    pub availability_zone: String,
    pub flavor: String,
    pub flavor_id: FlavorId,
    pub image: ImageId,
    pub launch_index: u32,
    pub reservation_id: String,
    /// An integer of the cloud's own, from which EC2's `i-xxxxxxxx` is made.
    pub ec2_number: u32,
    pub meta: BTreeMap<String, String>,
    /// Key pair name to public key, in OpenSSH's form.
    pub public_keys: BTreeMap<String, String>,
    /// Base64, as the user gave it.
    pub user_data: Option<String>,
    pub security_groups: Vec<String>,
    /// The addresses that the host needs for `meta_data` and `network_data.json`; in the order of the NICs.
    pub networks: Vec<MetadataNetwork>,
    /// A floating address, shown by EC2's `public-ipv4`.
    pub public_ipv4: Option<String>,
    pub admin_pass: Option<String>,
    /// Tagged devices, by which a guest finds what it was given; [`GuestSpec::told`] fills it.
    #[serde(default)]
    pub devices: Vec<MetadataDevice>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetadataDevice {
    /// `virtio` or `scsi`.
    pub bus: String,
    /// The name under which it was attached: `vdb`.
    #[serde(default)]
    pub device: String,
    pub serial: String,
    pub tag: String,
}

impl GuestSpec {
    /// The image below its root disk.
    pub fn image(&self) -> Option<ImageSource> {
        self.root.as_ref().map(ImageSource::from)
    }

    /// What the guest is told of itself, its tagged disks included.
    pub fn told(&self) -> InstanceMetadata {
        let mut told = self.metadata.clone();
        let tagged = self.volumes.iter().filter_map(|volume| Some((volume, volume.tag.clone()?)));
        told.devices.extend(tagged.map(|(volume, tag)| MetadataDevice {
            bus: volume.bus.name().into(),
            device: volume.device.clone(),
            serial: volume.volume.to_string(),
            tag,
        }));
        told
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetadataNetwork {
    pub port: PortId,
    pub network: NetworkId,
    pub mac: String,
    pub mtu: u16,
    pub addresses: Vec<MetadataAddress>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetadataAddress {
    pub address: String,
    pub prefix_len: u8,
    pub gateway: Option<String>,
    pub dns: Vec<String>,
    pub dhcp: bool,
}

/// A guest as it is. Reported when it changes, and for every guest at the start of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestObserved {
    pub id: ServerId,
    /// The generation of the spec that this observation has reached; 0 when the ledger knows none.
    pub generation: u64,
    pub power: ObservedPower,
    /// Reboots performed so far, in the counting of the spec.
    pub soft_reboots: u64,
    pub hard_reboots: u64,
    /// Why the guest stopped although nobody asked: `guest` (powered itself off), `killed: signal 9`, `host reboot`.
    pub stopped_by_itself: Option<String>,
    /// The agent could not do what the spec asks.
    pub fault: Option<AgentFault>,
    /// How often the agent has tried in vain; said anew at each doubling only.
    #[serde(default)]
    pub attempts: u32,
    /// Every volume of the spec, and those that have not left the guest yet.
    #[serde(default)]
    pub volumes: Vec<GuestVolumeObserved>,
    /// When the guest was last started.
    pub started_at: Option<Timestamp>,
    /// The root disk stands on no image any more.
    #[serde(default)]
    pub flat: bool,
    /// Why it still does, although it shall not; tried again.
    #[serde(default)]
    pub flat_problem: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservedPower {
    Absent,
    Stopped,
    /// QMP says running (or the container runs) and every port is wired.
    Running,
    Paused,
    Suspended,
    /// On its way; never a resting state.
    Building,
}

/// Why a host could not do something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentFault {
    /// Says cause and cure, and may be shown to the owner: no host paths, no other project's names.
    pub message: String,
    /// For administrators and the log.
    pub detail: String,
    /// True: the agent goes on trying with backoff. False: it has given up until the generation rises.
    pub retried: bool,
}

/// What a simulated or real host can carry, and what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostInventory {
    pub name: HostName,
    /// Drawn anew at each start of the agent: two sessions of one host never mix.
    pub session: String,
    /// The kernel's boot id: tells a reboot from a restart of the agent.
    pub boot_id: String,
    pub version: String,
    pub arch: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
    /// `QEMU` or `simulated`.
    pub hypervisor_type: String,
    /// Major * 1,000,000 + minor * 1,000 + patch.
    pub hypervisor_version: u64,
    /// `kvm`, `tcg` or `simulated`.
    pub accel: String,
    pub cpu_model: String,
    /// An address by which other hosts reach it.
    pub address: String,
    /// Where it keeps volumes; none: nowhere.
    #[serde(default)]
    pub volume_pool: Option<crate::VolumePool>,
    /// What the host lacks or warns of, for `nubo status`: short sentences.
    pub warnings: Vec<String>,
}

/// Whether a host's kernel holds alike pages of guests once (KSM).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharingSetting {
    /// The host's switch stays as it is, and QEMU does what it does by itself: it offers its memory.
    #[default]
    AsIs,
    Off,
    On,
}

impl SharingSetting {
    /// The words of the settings; none of them: as it is.
    pub fn parse(word: Option<&str>) -> Option<SharingSetting> {
        match word {
            None => Some(SharingSetting::AsIs),
            Some("off") => Some(SharingSetting::Off),
            Some("on") => Some(SharingSetting::On),
            Some(_) => None,
        }
    }

    /// Whether guests offer their memory; none: as QEMU does by itself.
    pub fn offers(self) -> Option<bool> {
        match self {
            SharingSetting::AsIs => None,
            SharingSetting::Off => Some(false),
            SharingSetting::On => Some(true),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            SharingSetting::AsIs => "as it is",
            SharingSetting::Off => "off",
            SharingSetting::On => "on",
        }
    }
}

/// Pages of memory that a host's kernel holds once for several owners (KSM): all processes of the host, not guests alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemorySharing {
    /// What the host is set to.
    pub setting: SharingSetting,
    /// The kernel looks for more.
    pub runs: bool,
    /// Pages that are held for several.
    pub pages_shared: u64,
    /// Pages that are not held because of them.
    pub pages_sharing: u64,
    /// `pages_sharing` times the size of a page.
    pub saved_bytes: u64,
    /// The same less what the kernel needs to know it; none: this kernel does not say.
    pub profit_bytes: Option<i64>,
    /// How often all offered memory has been looked at.
    pub full_scans: u64,
}
