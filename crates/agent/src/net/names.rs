//! Names of all that this driver makes in the kernel. Each bears the cloud's id, so that two clouds on one machine never
//! see each other's things, and each alias bears the whole id of its object, so that a listing finds the owner.
//!
//! Ids are time-ordered: their first digits are a clock and clash for objects made together, so names take the last.

use sha2::{Digest, Sha256};

/// The bridge in each network's namespace.
pub const BRIDGE: &str = "br0";
/// Where guests ask for metadata, in every network.
pub const METADATA: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 169, 254);

/// 32 hex digits that stand for an id: its own where it is a UUID, otherwise a digest of it.
pub fn key(id: &str) -> String {
    let plain: String = id.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
    if base::is_uuid(id) && plain.len() == 32 && plain.bytes().all(|b| b.is_ascii_hexdigit()) {
        return plain;
    }
    Sha256::digest(id.as_bytes()).iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// The last 12 digits of the key: 48 random bits.
pub fn short(id: &str) -> String {
    key(id)[20..].to_owned()
}

/// What a cloud's names begin with.
#[derive(Clone, Debug, PartialEq)]
pub struct Names {
    pub cloud: String,
}

impl Names {
    pub fn new(cloud: &base::CloudId) -> Names {
        Names { cloud: cloud.as_str().to_owned() }
    }

    /// Every namespace of the cloud begins so.
    pub fn prefix(&self) -> String {
        format!("nubo-{}-", self.cloud)
    }

    pub fn network(&self, id: &str) -> String {
        format!("{}n-{}", self.prefix(), short(id))
    }

    pub fn router(&self, id: &str) -> String {
        format!("{}r-{}", self.prefix(), short(id))
    }

    /// An alias: `nubo:CLOUD:KIND:ID`, and after a further colon what else must outlive the agent.
    pub fn alias(&self, kind: &str, id: &str) -> String {
        format!("{}{kind}:{id}", self.alias_prefix())
    }

    pub fn alias_prefix(&self) -> String {
        format!("nubo:{}:", self.cloud)
    }

    /// Both ends of a router's link to an external network. One end is in the underlay, which clouds share: the cloud
    /// is mixed into the name, so that two of them with the same ids (one restored from the other's backup) differ.
    pub fn gateway(&self, port: &str) -> String {
        format!("qg-{}", &key(&format!("{} {port}", self.cloud))[..12])
    }

    /// The bridge of an external network, in the underlay.
    pub fn external(&self, network: &str) -> String {
        format!("nubr-{}", &key(&format!("{} {network}", self.cloud))[..10])
    }

    /// The one table in the underlay.
    pub fn table(&self) -> String {
        format!("nubo_{}", self.cloud)
    }
}

/// Kind and id of an alias of this cloud.
pub fn owner<'a>(prefix: &str, alias: &'a str) -> Option<(&'a str, &'a str)> {
    let mut parts = alias.strip_prefix(prefix)?.split(':');
    Some((parts.next()?, parts.next()?))
}

/// A guest's link in its network's namespace.
pub fn tap(port: &str) -> String {
    format!("tap{}", short(port))
}

/// Both ends of a router's link to a tenant network.
pub fn inside(port: &str) -> String {
    format!("qr-{}", short(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_and_objects_made_in_the_same_millisecond_differ() {
        let (a, b) = ("018f3c2a-1b2c-7001-8aaa-000000000001", "018f3c2a-1b2c-7001-8aaa-000000000002");
        let names = Names { cloud: "0011aabb".into() };
        let other = Names { cloud: "0011aabc".into() };
        assert_ne!(names.gateway(a), other.gateway(a));
        for name in [tap(a), inside(a), names.gateway(a), names.external(a)] {
            assert!(name.len() <= 15, "{name}");
        }
        assert_ne!(tap(a), tap(b));
        assert_eq!(tap(a), "tap000000000001");
        assert_eq!(tap("not a uuid; drop").len(), 15);
        assert!(tap("../../x").bytes().skip(3).all(|c| c.is_ascii_hexdigit()));
    }

    #[test]
    fn an_alias_names_its_owner_in_its_own_cloud_only() {
        let names = Names { cloud: "0011aabb".into() };
        let alias = names.alias("network", "n1") + ":more";
        assert_eq!(owner(&names.alias_prefix(), &alias), Some(("network", "n1")));
        assert_eq!(owner("nubo:ffffffff:", &alias), None);
    }
}
