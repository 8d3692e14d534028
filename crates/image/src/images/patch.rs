//! Changing an image by JSON patch: add, replace and remove of whole attributes, in the two dialects that Glance takes.

use super::wire;
use crate::document::{Image, Visibility};
use crate::protection::{Action, Protections};
use base::{Fault, Result};
use contract::Caller;
use serde_json::Value;

/// Most operations of one patch.
const OPERATIONS: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `application/openstack-images-v2.0-json-patch`: `{"replace": "/name", "value": …}`.
    V20,
    /// `application/openstack-images-v2.1-json-patch`: `{"op": "replace", "path": "/name", "value": …}`.
    V21,
}

impl Dialect {
    /// The dialect of a content type; UnsupportedMedia for any other.
    pub fn of(content_type: Option<&str>) -> Result<Dialect> {
        let essence = content_type.unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/openstack-images-v2.0-json-patch" => Ok(Dialect::V20),
            "application/openstack-images-v2.1-json-patch" => Ok(Dialect::V21),
            _ => Err(Fault::unsupported_media(
                "Image PATCH expects Content-Type one of: application/openstack-images-v2.0-json-patch, \
                 application/openstack-images-v2.1-json-patch",
            )),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Sets it, whether it is there or not; the old dialect refuses what is there.
    Add {
        name: String,
        value: Value,
        only_new: bool,
    },
    /// Sets what must be there.
    Replace {
        name: String,
        value: Value,
    },
    Remove {
        name: String,
    },
}

impl Change {
    /// The visibility that the change asks for.
    pub fn visibility(&self) -> Option<Visibility> {
        match self {
            Change::Add { name, value, .. } | Change::Replace { name, value } if name == "visibility" => {
                Visibility::parse(value.as_str()?)
            }
            _ => None,
        }
    }
}

/// Reads a patch. Forbidden for what is read-only or reserved, Invalid for what is no patch.
pub fn read(dialect: Dialect, body: &Value) -> Result<Vec<Change>> {
    let Value::Array(operations) = body else {
        return Err(Fault::invalid("Request body must be a JSON array of operation objects."));
    };
    if operations.len() > OPERATIONS {
        return Err(Fault::invalid(format!("A patch may have at most {OPERATIONS} operations.")));
    }
    operations.iter().map(|operation| change(dialect, operation)).collect()
}

fn change(dialect: Dialect, operation: &Value) -> Result<Change> {
    let Value::Object(fields) = operation else {
        return Err(Fault::invalid("Operations must be JSON objects."));
    };
    let (op, path) = match dialect {
        Dialect::V21 => {
            let op = fields.get("op").and_then(Value::as_str).ok_or_else(|| {
                Fault::invalid(
                    "Unable to find `op` in JSON Schema change. It must be one of the following: add, remove, replace.",
                )
            })?;
            (op, fields.get("path"))
        }
        Dialect::V20 => {
            let mut named = ["add", "remove", "replace"].into_iter().filter(|op| fields.contains_key(*op));
            let (Some(op), None) = (named.next(), named.next()) else {
                return Err(Fault::invalid(
                    "Operation objects must contain exactly one member named \"add\", \"remove\", or \"replace\".",
                ));
            };
            (op, fields.get(op))
        }
    };
    let path = path.and_then(Value::as_str);
    let path = path.ok_or_else(|| Fault::invalid("Unable to find 'path' in JSON Schema change"))?;
    let name = pointer(path)?;
    protected(&name)?;
    let value = || {
        let value = fields.get("value").cloned();
        value.ok_or_else(|| Fault::invalid(format!("Operation \"{op}\" requires a member named \"value\".")))
    };
    match op {
        "add" => Ok(Change::Add { name, value: value()?, only_new: dialect == Dialect::V20 }),
        "replace" => Ok(Change::Replace { name, value: value()? }),
        "remove" => Ok(Change::Remove { name }),
        other => Err(Fault::invalid(format!(
            "Invalid operation: `{other}`. It must be one of the following: add, remove, replace."
        ))),
    }
}

/// The one name of a JSON pointer: attributes have no inner parts that could be patched.
fn pointer(path: &str) -> Result<String> {
    let refuse = |why: &str| Fault::invalid(format!("Pointer `{path}` {why}."));
    let Some(rest) = path.strip_prefix('/') else { return Err(refuse("does not start with \"/\"")) };
    if rest.is_empty() || rest.trim() == "/" {
        return Err(refuse("does not contains valid token"));
    }
    let parts: Vec<&str> = rest.split('/').collect();
    if parts.len() > 1 && parts.iter().take(parts.len() - 1).any(|part| part.trim().is_empty()) {
        return Err(refuse("contains adjacent \"/\""));
    }
    if rest.ends_with('/') {
        return Err(refuse("end with \"/\""));
    }
    let escapes = rest.match_indices('~').all(|(at, _)| matches!(rest.as_bytes().get(at + 1), Some(b'0' | b'1')));
    if !escapes {
        return Err(refuse("contains \"~\" not part of a recognized escape sequence"));
    }
    match parts.as_slice() {
        [one] => Ok(one.replace("~1", "/").replace("~0", "~").trim().to_owned()),
        _ if parts[0] == "locations" => Err(no_locations()),
        _ => Err(Fault::invalid(format!("Invalid JSON pointer for this resource: '{path}'"))),
    }
}

fn protected(name: &str) -> Result<()> {
    if wire::READ_ONLY.contains(&name) {
        return Err(Fault::forbidden(format!("Attribute '{name}' is read-only.")));
    }
    if wire::is_reserved(name) {
        return Err(Fault::forbidden(format!("Attribute '{name}' is reserved.")));
    }
    if name == "locations" {
        return Err(no_locations());
    }
    Ok(())
}

fn no_locations() -> Fault {
    Fault::forbidden("It's not allowed to add, replace or remove locations if locations are invisible.")
}

/// Makes one change. Conflict for what is missing or already there, Forbidden for removing an attribute and for what is
/// protected. A property that the caller may not see is not there.
pub fn apply(image: &mut Image, change: &Change, protections: &Protections, caller: &Caller) -> Result<()> {
    let seen = |name: &str| image.properties.contains_key(name) && protections.may(caller, Action::Read, name);
    let there = |name: &str| wire::is_changeable(name) || seen(name);
    let action = |name: &str| match change {
        Change::Remove { .. } => Action::Delete,
        _ if seen(name) => Action::Update,
        _ => Action::Create,
    };
    let need = |name: &str| match wire::is_changeable(name) {
        true => Ok(()),
        false => protections.need(caller, action(name), name),
    };
    match change {
        Change::Add { name, only_new: true, .. } if there(name) => {
            Err(Fault::conflict(format!("Property {name} already present.")))
        }
        Change::Replace { name, .. } if !there(name) => {
            Err(Fault::conflict(format!("Property {name} does not exist.")))
        }
        Change::Add { name, value, .. } | Change::Replace { name, value } => {
            need(name)?;
            wire::set(image, name, value)
        }
        Change::Remove { name } if wire::is_changeable(name) => {
            Err(Fault::forbidden(format!("Property {name} may not be removed.")))
        }
        Change::Remove { name } if !seen(name) => {
            Err(Fault::conflict(format!("Property {name} does not exist.")))
        }
        Change::Remove { name } => {
            need(name)?;
            image.properties.remove(name);
            Ok(())
        }
    }
}
