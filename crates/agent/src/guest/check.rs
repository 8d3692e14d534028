//! Whether a spec can be carried out at all: it comes from outside.

use crate::fault;
use agent_api::{AgentFault, DiskBus, GuestSpec, GuestVolume};

const MOST_VCPUS: u32 = 255;
const MOST_MEMORY_MIB: u64 = 4 << 20;
const MOST_DISK_GIB: u64 = 64 << 10;
const MOST_NICS: usize = 24;

/// An id that may name files, processes and groups: a UUID in lower case.
pub fn id(text: &str) -> bool {
    base::is_uuid(text) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

pub fn spec(spec: &GuestSpec) -> Result<(), AgentFault> {
    let need = |holds: bool, what: &str| {
        if holds { Ok(()) } else { Err(fault::refused(format!("The host refuses this server: {what}."))) }
    };
    need(id(&spec.id), "its id is no UUID")?;
    need((1..=MOST_VCPUS).contains(&spec.vcpus), &format!("it has {} processors, 1 to {MOST_VCPUS} go", spec.vcpus))?;
    need(
        (8..=MOST_MEMORY_MIB).contains(&spec.memory_mib),
        &format!("it has {} MiB of memory, 8 to {MOST_MEMORY_MIB} go", spec.memory_mib),
    )?;
    if let Some(root) = &spec.root {
        need(root.size_gib <= MOST_DISK_GIB, &format!("its disk has {} GiB, {MOST_DISK_GIB} go", root.size_gib))?;
        need(sha512(&root.sha512), "the image's SHA-512 is not 128 hex digits in lower case")?;
    }
    need(spec.nics.len() <= MOST_NICS, &format!("it has {} ports, {MOST_NICS} go", spec.nics.len()))?;
    for nic in &spec.nics {
        need(id(&nic.port), "a port's id is no UUID")?;
        need(mac(&nic.mac), &format!("{:?} is no unicast MAC address", nic.mac))?;
        need(nic.mtu >= 68, &format!("an MTU of {} is too small, 68 go", nic.mtu))?;
    }
    for (at, volume) in spec.volumes.iter().enumerate() {
        need(id(&volume.volume), "a volume's id is no UUID")?;
        let place = super::volumes::slot(&volume.device).is_some();
        need(place, &format!("{:?} is no place for a volume, vda to vdo are", volume.device))?;
        need(volume.bus == DiskBus::Virtio, "volumes are on the virtio bus only")?;
        let clash = |it: &GuestVolume| it.volume == volume.volume || it.device == volume.device;
        need(!spec.volumes[..at].iter().any(clash), "a volume or a place is named twice")?;
    }
    let boots = spec.root.is_some() || spec.volumes.iter().any(|volume| volume.boot_index == Some(0));
    need(boots, "it has nothing to boot from")?;
    let data = spec.metadata.user_data.as_ref().map_or(0, String::len);
    need(data <= 2 * base::limits::USER_DATA_BYTES, "its user data is too long")
}

/// A digest that may name a file.
pub fn sha512(text: &str) -> bool {
    text.len() == 128 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let first = u8::from_str_radix(parts[0], 16).unwrap_or(1);
    let hex = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.len() == 6 && parts.iter().all(hex) && first & 1 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_addresses_from_outside_are_looked_at() {
        assert!(id("5f2b0a6e-0001-4000-8000-000000000001"));
        for bad in ["", "..", "../../etc", "5F2B0A6E-0001-4000-8000-000000000001", "{5f2b0a6e-0001-4000-8000-00000001}"]
        {
            assert!(!id(bad), "{bad}");
        }
        assert!(mac("fa:16:3e:00:00:01"));
        for bad in ["", "fa:16:3e:00:00", "01:00:5e:00:00:01", "fa:16:3e:00:00:01,x=y", "fa:16:3e:00:00:+1"] {
            assert!(!mac(bad), "{bad}");
        }
    }
}
