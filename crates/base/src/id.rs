//! Typed ids. Each is a short string as the API shows it; the type says what it names.

/// Declares a typed id.
#[macro_export]
macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => { $(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes any text: an id that names nothing is found out where it is looked up.
            pub fn new(text: impl Into<String>) -> Self { $name(text.into()) }
            pub fn as_str(&self) -> &str { &self.0 }
            pub fn is_empty(&self) -> bool { self.0.is_empty() }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(&self.0) }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{}({})", stringify!($name), self.0) }
        }
        impl std::ops::Deref for $name { type Target = str; fn deref(&self) -> &str { &self.0 } }
        impl AsRef<str> for $name { fn as_ref(&self) -> &str { &self.0 } }
        impl From<&str> for $name { fn from(text: &str) -> Self { $name(text.to_owned()) } }
        impl From<String> for $name { fn from(text: String) -> Self { $name(text) } }
        impl Default for $name { fn default() -> Self { $name(String::new()) } }
    )* };
}

id! {
    DomainId, ProjectId, UserId, RoleId, ServiceId, EndpointId, GroupId,
    ImageId, FlavorId, ServerId, KeyPairId,
    NetworkId, SubnetId, PortId, RouterId, FloatingIpId, SecurityGroupId, SecurityGroupRuleId,
    VolumeId, VolumeSnapshotId, AttachmentId,
    /// A host's name, as `openstack hypervisor list` shows it. At most 63 characters of `[a-z0-9-.]`.
    HostName,
    /// `req-` and a UUID: stands on every answer and log line.
    RequestId,
    /// The eight hex digits that mark everything a cloud makes on a machine.
    CloudId,
}

/// True for 8-4-4-4-12 hex digits, or 32 without dashes.
pub fn is_uuid(text: &str) -> bool {
    matches!(text.len(), 32 | 36) && uuid::Uuid::try_parse(text).is_ok()
}
