//! What stands inside a token: Keystone's msgpack payloads, byte for byte.
//!
//! Each is an array whose first entry is the version of the payload. Ids that are UUIDs are packed into 16 bytes, which
//! is told by a flag before them; times are seconds as a double; audit ids are bytes.

use super::fernet::URL_SAFE;
use super::methods::{Methods, Order};
use base::{DomainId, ProjectId, Timestamp, UserId};
use base64::Engine;
use rmp::Marker;
use rmp::encode::{self, ByteBuf};

/// 16 bytes that name one token, shown as 22 characters. See [`super::audit`] for what ours hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AuditId(pub [u8; 16]);

impl AuditId {
    pub fn parse(text: &str) -> Option<AuditId> {
        URL_SAFE.decode(text).ok()?.try_into().ok().map(AuditId)
    }
}

impl std::fmt::Display for AuditId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&URL_SAFE.encode(self.0))
    }
}

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Unscoped,
    Domain(DomainId),
    Project(ProjectId),
    Trust { project: ProjectId, trust: String },
    Federated { scope: FederatedScope, groups: Vec<String>, provider: String, protocol: String },
    Oauth { project: ProjectId, access_token: String },
    System,
    ApplicationCredential { project: ProjectId, id: String },
    Oauth2 { project: ProjectId, domain: DomainId, thumbprint: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FederatedScope {
    Unscoped,
    Project(ProjectId),
    Domain(DomainId),
}

/// A token's content.
#[derive(Clone, Debug, PartialEq)]
pub struct Payload {
    pub user: UserId,
    pub methods: Methods,
    pub scope: Scope,
    pub expires: Timestamp,
    /// Its own, and that of the first token of its chain if it was made from another.
    pub audit: Vec<AuditId>,
}

impl Payload {
    pub fn pack(&self, order: Order) -> Vec<u8> {
        let mut out = Writer(ByteBuf::with_capacity(128));
        let (version, length) = self.shape();
        out.array(length);
        out.number(version);
        out.id(&self.user);
        out.number(order.number(self.methods));
        match &self.scope {
            Scope::Domain(id) => out.domain(id),
            Scope::Project(project) | Scope::Trust { project, .. } | Scope::ApplicationCredential { project, .. } => {
                out.id(project);
            }
            Scope::Federated { scope, groups, provider, protocol } => {
                match scope {
                    FederatedScope::Unscoped => {}
                    FederatedScope::Project(id) => out.id(id),
                    FederatedScope::Domain(id) => out.id(id),
                }
                out.array(groups.len() as u32);
                groups.iter().for_each(|group| out.id(group));
                out.id(provider);
                out.text(protocol);
            }
            Scope::Oauth { project, access_token } => {
                out.id(project);
                out.id(access_token);
            }
            Scope::Oauth2 { project, domain, .. } => {
                out.id(project);
                out.id(domain);
            }
            Scope::System => out.text("all"),
            Scope::Unscoped => {}
        }
        out.seconds(self.expires);
        out.array(self.audit.len() as u32);
        self.audit.iter().for_each(|id| out.bytes(&id.0));
        match &self.scope {
            Scope::Trust { trust, .. } => match packed(trust) {
                Some(bytes) => out.bytes(&bytes),
                None => out.text(trust),
            },
            Scope::ApplicationCredential { id, .. } => out.id(id),
            Scope::Oauth2 { thumbprint, .. } => out.flagged_text(thumbprint),
            _ => {}
        }
        out.0.into_vec()
    }

    /// Version and number of entries.
    fn shape(&self) -> (u64, u32) {
        match &self.scope {
            Scope::Unscoped => (0, 5),
            Scope::Domain(_) => (1, 6),
            Scope::Project(_) => (2, 6),
            Scope::Trust { .. } => (3, 7),
            Scope::Federated { scope: FederatedScope::Unscoped, .. } => (4, 8),
            Scope::Federated { scope: FederatedScope::Project(_), .. } => (5, 9),
            Scope::Federated { scope: FederatedScope::Domain(_), .. } => (6, 9),
            Scope::Oauth { .. } => (7, 7),
            Scope::System => (8, 6),
            Scope::ApplicationCredential { .. } => (9, 7),
            Scope::Oauth2 { .. } => (10, 8),
        }
    }

    /// None for anything that is not exactly a payload.
    pub fn unpack(bytes: &[u8], order: Order) -> Option<Payload> {
        let mut from = Reader(bytes);
        let length = from.array()?;
        let version = from.number()?;
        let user = UserId::new(from.id()?);
        let methods = order.methods(from.number()?);
        let mut scope = match version {
            0 => Scope::Unscoped,
            1 => Scope::Domain(DomainId::new(from.bare_id()?)),
            2 => Scope::Project(ProjectId::new(from.id()?)),
            3 => Scope::Trust { project: ProjectId::new(from.id()?), trust: String::new() },
            4..=6 => from.federated(version)?,
            7 => Scope::Oauth { project: ProjectId::new(from.id()?), access_token: from.id()? },
            8 => (from.bare_id()? == "all").then_some(Scope::System)?,
            9 => Scope::ApplicationCredential { project: ProjectId::new(from.id()?), id: String::new() },
            10 => Scope::Oauth2 {
                project: ProjectId::new(from.id()?),
                domain: DomainId::new(from.id()?),
                thumbprint: String::new(),
            },
            _ => return None,
        };
        let expires = from.seconds()?;
        let audit = (0..from.array()?).map(|_| from.audit()).collect::<Option<Vec<_>>>()?;
        match &mut scope {
            Scope::Trust { trust, .. } => *trust = from.bare_id()?,
            Scope::ApplicationCredential { id, .. } => *id = from.id()?,
            Scope::Oauth2 { thumbprint, .. } => *thumbprint = from.id()?,
            _ => {}
        }
        let payload = Payload { user, methods, scope, expires, audit };
        (from.0.is_empty() && !payload.audit.is_empty() && payload.shape().1 == length).then_some(payload)
    }
}

/// The content of a receipt: what a user has proved so far, where more is asked for. Keystone's form.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    pub user: UserId,
    pub methods: Methods,
    pub expires: Timestamp,
}

impl Receipt {
    pub fn pack(&self, order: Order) -> Vec<u8> {
        let mut out = Writer(ByteBuf::with_capacity(64));
        out.array(3);
        out.id(&self.user);
        out.number(order.number(self.methods));
        out.seconds(self.expires);
        out.0.into_vec()
    }

    /// None for anything that is not exactly a receipt; a token's payload begins with a number and is none.
    pub fn unpack(bytes: &[u8], order: Order) -> Option<Receipt> {
        let mut from = Reader(bytes);
        if from.array()? != 3 {
            return None;
        }
        let user = UserId::new(from.id()?);
        let receipt = Receipt { user, methods: order.methods(from.number()?), expires: from.seconds()? };
        from.0.is_empty().then_some(receipt)
    }
}

/// 16 bytes for what Python's `uuid.UUID` reads and writes back as 32 hex digits.
fn packed(id: &str) -> Option<[u8; 16]> {
    let lower = id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    lower.then(|| uuid::Uuid::try_parse(id).ok().map(uuid::Uuid::into_bytes)).flatten()
}

struct Writer(ByteBuf);

// Writing to memory cannot fail: the error type of `ByteBuf` has no value.
impl Writer {
    fn array(&mut self, length: u32) {
        let Ok(_) = encode::write_array_len(&mut self.0, length);
    }

    fn number(&mut self, number: u64) {
        let Ok(_) = encode::write_uint(&mut self.0, number);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let Ok(()) = encode::write_bin(&mut self.0, bytes);
    }

    fn text(&mut self, text: &str) {
        let Ok(()) = encode::write_str(&mut self.0, text);
    }

    fn flagged_text(&mut self, text: &str) {
        self.array(2);
        let Ok(()) = encode::write_bool(&mut self.0, false);
        self.text(text);
    }

    fn id(&mut self, id: &str) {
        let Some(bytes) = packed(id) else { return self.flagged_text(id) };
        self.array(2);
        let Ok(()) = encode::write_bool(&mut self.0, true);
        self.bytes(&bytes);
    }

    /// Without a flag; `default` is the one that is no UUID.
    fn domain(&mut self, id: &str) {
        match packed(id) {
            Some(bytes) => self.bytes(&bytes),
            None => self.text(id),
        }
    }

    fn seconds(&mut self, at: Timestamp) {
        let Ok(()) = encode::write_f64(&mut self.0, at.micros() as f64 / 1e6);
    }
}

struct Reader<'a>(&'a [u8]);

/// No list in a payload is longer.
const ENTRIES: u32 = 1024;

impl Reader<'_> {
    fn array(&mut self) -> Option<u32> {
        rmp::decode::read_array_len(&mut self.0).ok().filter(|length| *length <= ENTRIES)
    }

    fn number(&mut self) -> Option<u64> {
        rmp::decode::read_int(&mut self.0).ok()
    }

    fn raw(&mut self) -> Option<(&[u8], bool)> {
        let marker = Marker::from_u8(*self.0.first()?);
        let binary = matches!(marker, Marker::Bin8 | Marker::Bin16 | Marker::Bin32);
        let length = if binary {
            rmp::decode::read_bin_len(&mut self.0).ok()?
        } else {
            rmp::decode::read_str_len(&mut self.0).ok()?
        };
        let (bytes, rest) = self.0.split_at_checked(length as usize)?;
        self.0 = rest;
        Some((bytes, binary))
    }

    fn text(&mut self) -> Option<String> {
        std::str::from_utf8(self.raw()?.0).ok().map(str::to_owned)
    }

    /// `[packed, value]`.
    fn id(&mut self) -> Option<String> {
        if self.array()? != 2 {
            return None;
        }
        if rmp::decode::read_bool(&mut self.0).ok()? { hex(self.raw()?.0) } else { self.text() }
    }

    /// A value that is packed when it is binary and has 16 bytes.
    fn bare_id(&mut self) -> Option<String> {
        match self.raw()? {
            (bytes, true) if bytes.len() == 16 => hex(bytes),
            (bytes, _) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        }
    }

    fn federated(&mut self, version: u64) -> Option<Scope> {
        let scope = match version {
            5 => FederatedScope::Project(ProjectId::new(self.id()?)),
            6 => FederatedScope::Domain(DomainId::new(self.id()?)),
            _ => FederatedScope::Unscoped,
        };
        let groups = (0..self.array()?).map(|_| self.id()).collect::<Option<Vec<_>>>()?;
        Some(Scope::Federated { scope, groups, provider: self.id()?, protocol: self.text()? })
    }

    fn seconds(&mut self) -> Option<Timestamp> {
        let seconds = if Marker::from_u8(*self.0.first()?) == Marker::F64 {
            rmp::decode::read_f64(&mut self.0).ok()?
        } else {
            rmp::decode::read_int::<i64, _>(&mut self.0).ok()? as f64
        };
        (seconds.is_finite() && (0.0..=253_402_300_799.0).contains(&seconds))
            .then(|| Timestamp((seconds * 1e6).round() as i64))
    }

    fn audit(&mut self) -> Option<AuditId> {
        self.raw()?.0.try_into().ok().map(AuditId)
    }
}

fn hex(bytes: &[u8]) -> Option<String> {
    Some(uuid::Uuid::from_slice(bytes).ok()?.simple().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Keyring;
    use crate::token::fernet::{self, Key};
    use proptest::prelude::*;
    use serde_json::Value;

    /// Tokens that Keystone 30's formatter made, with what it reads out of them.
    const GOLDEN: &str = include_str!("golden.json");

    fn shown(scope: &Scope) -> Value {
        let mut of = serde_json::json!({"system": null, "domain_id": null, "project_id": null, "trust_id": null,
            "federated_group_ids": null, "identity_provider_id": null, "protocol_id": null, "access_token_id": null,
            "app_cred_id": null, "thumbprint": null});
        let mut set = |name: &str, value: &str| of[name] = value.into();
        match scope {
            Scope::Unscoped => {}
            Scope::Domain(id) => set("domain_id", id),
            Scope::Project(id) => set("project_id", id),
            Scope::System => set("system", "all"),
            Scope::Trust { project, trust } => {
                set("project_id", project);
                set("trust_id", trust);
            }
            Scope::Oauth { project, access_token } => {
                set("project_id", project);
                set("access_token_id", access_token);
            }
            Scope::ApplicationCredential { project, id } => {
                set("project_id", project);
                set("app_cred_id", id);
            }
            Scope::Oauth2 { project, domain, thumbprint } => {
                set("project_id", project);
                set("domain_id", domain);
                set("thumbprint", thumbprint);
            }
            Scope::Federated { scope, groups, provider, protocol } => {
                set("identity_provider_id", provider);
                set("protocol_id", protocol);
                match scope {
                    FederatedScope::Unscoped => {}
                    FederatedScope::Project(id) => set("project_id", id),
                    FederatedScope::Domain(id) => set("domain_id", id),
                }
                let groups: Vec<_> = groups.iter().map(|id| serde_json::json!({ "id": id })).collect();
                of["federated_group_ids"] = groups.into();
            }
        }
        of
    }

    #[test]
    fn reads_what_keystone_wrote_and_writes_the_same_bytes() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let keys: Vec<Key> =
            golden["keys"].as_array().unwrap().iter().map(|key| Key::parse(key.as_str().unwrap()).unwrap()).collect();
        let tokens = golden["tokens"].as_array().unwrap();
        let usual = Order::default();
        assert_eq!(tokens.len(), 14);
        for case in tokens {
            let (message, at) = fernet::open(&keys, case["token"].as_str().unwrap()).unwrap();
            let payload = Payload::unpack(&message, usual).unwrap_or_else(|| panic!("{case}"));
            let means = &case["means"];
            assert_eq!(means["user_id"], payload.user.as_str());
            assert_eq!(means["expires_at"], payload.expires.iso_micros());
            assert_eq!(means["issued_at"], Timestamp(at as i64 * 1_000_000).iso_micros());
            let audit: Vec<_> = payload.audit.iter().map(AuditId::to_string).collect();
            assert_eq!(means["audit_ids"], serde_json::json!(audit));
            assert_eq!(means["methods"], serde_json::json!(payload.methods.names()), "{case}");
            for (name, value) in shown(&payload.scope).as_object().unwrap() {
                assert_eq!(&means[name], value, "{name} of {case}");
            }
            let hex: String = payload.pack(usual).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(case["payload"], hex, "{}", case["class"]);
        }
    }

    /// What a Keystone wrote whose `[auth] methods` are in another order differs in that number alone.
    #[test]
    fn a_token_of_another_order_of_methods_says_what_it_was_made_by() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let key = |key: &Value| Key::parse(key.as_str().unwrap()).unwrap();
        let keys: Vec<Key> = golden["keys"].as_array().unwrap().iter().map(key).collect();
        let order = Order::parse(&["openid", "token", "application_credential", "totp", "password"]).unwrap();
        for case in golden["tokens"].as_array().unwrap() {
            let (message, second) = fernet::open(&keys, case["token"].as_str().unwrap()).unwrap();
            let payload = Payload::unpack(&message, Order::default()).unwrap();
            // As that Keystone seals it, and as this cloud reads it.
            let theirs = keys[0].encrypt(&payload.pack(order), second, [9; 16]);
            let ring = Keyring { keys: keys.clone(), methods: order, ..Keyring::default() };
            let read = ring.open(&theirs).unwrap().0;
            assert_eq!((&read, serde_json::json!(read.methods.names())), (&payload, case["means"]["methods"].clone()));
            let usual = Keyring { methods: Order::default(), ..ring };
            // One of them was made by none.
            let same = usual.open(&theirs).unwrap().0.methods == payload.methods;
            assert_eq!(same, payload.methods == Methods::default(), "{case}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Payload::unpack(&bytes, Order::default());
        }

        #[test]
        fn bent_payloads_are_taken_without_a_panic(at in any::<usize>(), byte in any::<u8>(), cut in any::<usize>()) {
            let payload = Payload {
                user: "0123456789abcdef0123456789abcdef".into(),
                methods: Methods::PASSWORD,
                scope: Scope::Project("odd".into()),
                expires: Timestamp(1_700_000_000_000_000),
                audit: vec![AuditId([1; 16]), AuditId([2; 16])],
            };
            let usual = Order::default();
            let mut bytes = payload.pack(usual);
            prop_assert_eq!(Payload::unpack(&bytes, usual), Some(payload));
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Payload::unpack(&bytes, usual);
            bytes.truncate(cut % bytes.len());
            prop_assert_eq!(Payload::unpack(&bytes, usual), None);
        }
    }
}
