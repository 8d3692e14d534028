//! Who sees what of a change: administrators everything that history keeps, others the documents of their own project
//! that an API shows them, and of those only what it shows.

use serde_json::{Value, json};
use store::Change;

/// Kinds and fields that the APIs show to a project's own users. What is not listed is not shown: a new kind or field
/// has to be put here.
const TENANT: &[(&str, &[&str])] = &[
    ("network", &["name", "admin_state_up", "shared", "external", "is_default", "mtu", "port_security", "standard"]),
    (
        "subnet",
        &[
            "network_id",
            "name",
            "cidr",
            "gateway",
            "pools",
            "dhcp",
            "dns",
            "host_routes",
            "ipv6_ra_mode",
            "ipv6_address_mode",
            "standard",
        ],
    ),
    (
        "port",
        &[
            "network_id",
            "name",
            "admin_state_up",
            "mac",
            "fixed_ips",
            "device_id",
            "device_owner",
            "security_groups",
            "port_security",
            "address_pairs",
            "dhcp_options",
            "vnic_type",
            "standard",
        ],
    ),
    ("router", &["name", "admin_state_up", "gateway", "routes", "standard"]),
    ("floatingip", &["network_id", "address", "port_id", "fixed_ip_address", "router_id", "standard"]),
    ("security_group", &["name", "stateful", "is_default", "standard"]),
    (
        "security_group_rule",
        &[
            "group_id",
            "direction",
            "ipv6",
            "protocol",
            "port_min",
            "port_max",
            "remote_group",
            "remote_prefix",
            "standard",
        ],
    ),
    (
        "image",
        &[
            "owner",
            "name",
            "status",
            "visibility",
            "protected",
            "hidden",
            "container_format",
            "disk_format",
            "min_disk_gib",
            "min_ram_mib",
            "tags",
            "properties",
        ],
    ),
    (
        "volume",
        &[
            "user_id",
            "name",
            "description",
            "size_gib",
            "volume_type",
            "zone",
            "origin",
            "metadata",
            "image_metadata",
            "bootable",
            "read_only",
        ],
    ),
    ("volume_snapshot", &["user_id", "volume", "name", "description", "size_gib", "metadata"]),
    ("volume_attachment", &["volume", "server", "device", "mode", "stage", "attached_at"]),
    ("volume_transfer", &["volume", "name"]),
    ("image_member", &["image", "status"]),
    (
        "server",
        &[
            "user_id",
            "name",
            "description",
            "power",
            "verb",
            "flavor",
            "image",
            "key_name",
            "metadata",
            "tags",
            "config_drive",
            "lock",
            "disk_config",
            "access_ip_v4",
            "access_ip_v6",
            "fault",
        ],
    ),
    ("server_observed", &["power", "fault", "gave_up", "launched_at"]),
    ("instance_action", &["server_id", "user_id", "request_id", "action", "message", "finish", "success"]),
];

/// What a caller sees.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sight {
    All,
    Project(String),
    Nothing,
}

impl Sight {
    pub fn sees(&self, change: &Change) -> bool {
        match self {
            Sight::All => true,
            Sight::Nothing => false,
            Sight::Project(project) => {
                let theirs = change.project_id == *project || change.left.as_deref() == Some(project);
                theirs && TENANT.iter().any(|(kind, _)| *kind == change.kind)
            }
        }
    }

    /// The line about a change; `None` where there is nothing to see.
    pub fn shown(&self, change: &Change) -> Option<Value> {
        if !self.sees(change) {
            return None;
        }
        let moved = change.left.is_some();
        let (what, project, body) = match (self, &change.body) {
            // For the project that it has left it is gone, for the one it came to it is new.
            (Sight::Project(own), Some(_)) if moved && change.project_id != *own => ("deleted", own.as_str(), None),
            (Sight::Project(_), Some(body)) if moved => ("created", change.project_id.as_str(), Some(body)),
            (_, Some(body)) => {
                (if change.existed { "updated" } else { "created" }, change.project_id.as_str(), Some(body))
            }
            (_, None) => ("deleted", change.project_id.as_str(), None),
        };
        let body = body.and_then(|body| serde_json::from_str::<Value>(body).ok()).map(|body| self.cut(change, body));
        Some(json!({
            "rev": change.rev,
            "at": crate::watch::at(change.updated),
            "kind": change.kind,
            "id": change.id,
            "project_id": project,
            "change": what,
            "body": body,
        }))
    }

    fn cut(&self, change: &Change, mut body: Value) -> Value {
        if *self == Sight::All {
            return body;
        }
        let fields = TENANT.iter().find(|(kind, _)| *kind == change.kind).map_or(&[][..], |(_, fields)| fields);
        if let Some(object) = body.as_object_mut() {
            object.retain(|name, _| name == "id" || name == "project_id" || fields.contains(&name.as_str()));
        }
        // The details of a fault name hosts.
        if let Some(fault) = body.get_mut("fault").and_then(Value::as_object_mut) {
            fault.remove("details");
        }
        body
    }
}
