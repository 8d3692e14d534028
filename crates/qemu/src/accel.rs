//! Which accelerator a host has: KVM where it really works, TCG otherwise.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    Kvm,
    Tcg,
}

impl Accel {
    pub fn name(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        }
    }
}

/// What was chosen, and what an operator should know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub accel: Accel,
    pub warning: Option<String>,
}

/// Chooses by the setting `auto`, `kvm` or `tcg`. The error says what to change.
pub fn choose(setting: &str) -> Result<Choice, String> {
    decide(setting, probe())
}

fn decide(setting: &str, kvm: Result<(), String>) -> Result<Choice, String> {
    match (setting, kvm) {
        ("tcg", _) => Ok(Choice { accel: Accel::Tcg, warning: None }),
        ("auto" | "kvm", Ok(())) => Ok(Choice { accel: Accel::Kvm, warning: None }),
        ("auto", Err(why)) => Ok(Choice {
            accel: Accel::Tcg,
            warning: Some(format!(
                "Guests are emulated by TCG, ten to thirty times slower than KVM, because {why}. Switch on \
                 virtualization in the firmware, or nested virtualization if this is itself a virtual machine."
            )),
        }),
        ("kvm", Err(why)) => Err(format!("NUBO_ACCEL=kvm, but {why}. Set NUBO_ACCEL to auto or tcg.")),
        (other, _) => Err(format!("NUBO_ACCEL is {other:?}; it must be auto, kvm or tcg.")),
    }
}

/// Whether KVM works: a device that opens is not enough, since it may stand on a processor that cannot run guests, and
/// those then hang in the firmware.
fn probe() -> Result<(), String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !cpu_can(&info) {
        return Err("the processor shows neither vmx nor svm".into());
    }
    let device = File::options().read(true).write(true).open("/dev/kvm");
    let device = device.map_err(|error| format!("/dev/kvm does not open: {error}"))?;
    const KVM_GET_API_VERSION: libc::c_ulong = 0xAE00;
    const KVM_CREATE_VM: libc::c_ulong = 0xAE01;
    // SAFETY: both requests take an integer argument, touch no memory of ours and answer an integer.
    let version = unsafe { libc::ioctl(device.as_raw_fd(), KVM_GET_API_VERSION, 0) };
    if version != 12 {
        return Err(format!("/dev/kvm speaks version {version} instead of 12"));
    }
    // SAFETY: as above; the answer is a new descriptor, closed at once.
    let vm = unsafe { libc::ioctl(device.as_raw_fd(), KVM_CREATE_VM, 0) };
    if vm < 0 {
        return Err(format!("KVM makes no virtual machine: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: the descriptor was made above and nobody else knows it.
    unsafe { libc::close(vm) };
    Ok(())
}

fn cpu_can(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_is_taken_only_where_it_works() {
        let broken = || Err("the processor shows neither vmx nor svm".to_owned());
        assert_eq!(decide("auto", Ok(())).unwrap().accel, Accel::Kvm);
        let choice = decide("auto", broken()).unwrap();
        assert_eq!(choice.accel, Accel::Tcg);
        assert!(choice.warning.unwrap().contains("neither vmx nor svm"));
        assert_eq!(decide("tcg", Ok(())).unwrap(), Choice { accel: Accel::Tcg, warning: None });
        assert!(decide("kvm", broken()).unwrap_err().contains("auto or tcg"));
        assert!(decide("xen", Ok(())).unwrap_err().contains("\"xen\""));
    }

    #[test]
    fn processor_flags_are_whole_words() {
        assert!(cpu_can("model name : x\nflags\t\t: fpu vmx sse\n"));
        assert!(!cpu_can("model name : vmx\nflags\t\t: fpu vmxnet sse\n"));
    }
}
