//! The options of a domain's directory, under Keystone's names and with its defaults.

use crate::documents::*;
use ldap::{Dereference, Dn, Filter, Scope};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The most addresses of a server.
const URLS: usize = 8;
/// The most entries of a page, and further attributes.
const PAGE: u64 = 5000;
const EXTRAS: usize = 64;

/// Where a directory is and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Tried in this order.
    pub urls: Vec<Url>,
    /// TLS begins after a word in the clear.
    pub start_tls: bool,
    pub certificates: Certificates,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// TLS from the first byte on.
    pub tls: bool,
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
}

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificates {
    /// Those of the system.
    System,
    File(PathBuf),
    Folder(PathBuf),
    /// Anybody's.
    Any,
}

/// One kind of entries.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub tree: String,
    pub tree_dn: Dn,
    pub object_class: String,
    pub filter: Option<Filter>,
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    /// Attributes of the directory, and the names under which they are shown.
    pub extra: Vec<(String, String)>,
}

/// How it is told who is enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Enabled {
    /// Everybody.
    Always,
    Attribute {
        name: String,
        usual: String,
        invert: bool,
    },
    /// Not all bits of the mask are set.
    Mask {
        name: String,
        usual: i64,
        mask: i64,
    },
    /// Who is a member of this entry.
    Members {
        dn: String,
        attribute: String,
        are_ids: bool,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub server: Server,
    /// Who asks; anybody if none.
    pub user: Option<String>,
    pub scope: Scope,
    pub dereference: Dereference,
    pub page_size: u32,
    pub list_limit: Option<usize>,
    pub users: Class,
    pub mail: Option<String>,
    pub default_project: Option<String>,
    pub enabled: Enabled,
    pub groups: Class,
    pub member: String,
    pub members_are_ids: bool,
}

/// True where the users of the domain come from a directory.
pub(super) fn names_directory(config: &DomainConfig) -> bool {
    config.groups.get("identity").and_then(|group| group.get("driver")) == Some(&Value::from("ldap"))
}

/// Options with their defaults. Values may be what they are or text that says so, as in Keystone.
struct Options<'a> {
    given: Option<&'a Extra>,
    usual: Value,
}

impl Options<'_> {
    fn value(&self, name: &str) -> &Value {
        self.given.and_then(|given| given.get(name)).unwrap_or(&self.usual[name])
    }

    /// None for what is null or empty.
    fn text(&self, name: &str) -> Result<Option<String>, String> {
        match self.value(name) {
            Value::Null => Ok(None),
            Value::String(text) if text.contains('\0') => Err(format!("{name} contains the character U+0000")),
            Value::String(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Value::Number(number) => Ok(Some(number.to_string())),
            Value::Bool(true) => Ok(Some("True".into())),
            Value::Bool(false) => Ok(Some("False".into())),
            _ => Err(format!("{name} is no text")),
        }
    }

    fn need(&self, name: &str) -> Result<String, String> {
        self.text(name)?.ok_or_else(|| format!("{name} is empty"))
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        let text = self.text(name)?.unwrap_or_default().to_ascii_lowercase();
        match text.as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" | "" => Ok(false),
            _ => Err(format!("{name} is neither true nor false")),
        }
    }

    fn number(&self, name: &str) -> Result<i64, String> {
        let text = self.text(name)?.unwrap_or_else(|| "0".into());
        text.parse().map_err(|_| format!("{name} is no number"))
    }

    fn list(&self, name: &str) -> Result<Vec<String>, String> {
        let wrong = || format!("{name} is no list of texts");
        let items = match self.value(name) {
            Value::Null => Vec::new(),
            Value::String(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
            Value::Array(items) => items
                .iter()
                .map(|item| item.as_str().map(|item| item.trim().to_owned()))
                .collect::<Option<_>>()
                .ok_or_else(wrong)?,
            _ => return Err(wrong()),
        };
        Ok(items.into_iter().filter(|item| !item.is_empty()).collect())
    }

    fn filter(&self, name: &str) -> Result<Option<Filter>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        Filter::parse(&text).map(Some).map_err(|error| format!("{name}: {error}"))
    }

    fn class(&self, kind: &str, unit: &str) -> Result<(Class, BTreeSet<String>), String> {
        let option = |name: &str| format!("{kind}_{name}");
        let tree = match self.text(&option("tree_dn"))? {
            Some(tree) => tree,
            None => format!("{unit},{}", self.need("suffix")?),
        };
        let ignored: BTreeSet<String> = self.list(&option("attribute_ignore"))?.into_iter().collect();
        let pair = |item: &String| {
            let (theirs, ours) = item.split_once(':')?;
            Some((theirs.trim().to_owned(), ours.trim().to_owned()))
                .filter(|(theirs, ours)| !theirs.is_empty() && !ours.is_empty())
        };
        let extra = self.list(&option("additional_attribute_mapping"))?;
        let wrong =
            || format!("{} is no list of at most {EXTRAS} pairs 'theirs:ours'", option("additional_attribute_mapping"));
        let extra: Vec<_> = extra
            .iter()
            .map(pair)
            .collect::<Option<_>>()
            .filter(|all: &Vec<_>| all.len() <= EXTRAS)
            .ok_or_else(wrong)?;
        let description = if kind == "user" { "user_description_attribute" } else { "group_desc_attribute" };
        let class = Class {
            tree_dn: Dn::parse(&tree).ok_or_else(|| format!("{} is no distinguished name", option("tree_dn")))?,
            tree,
            object_class: self.need(&option("objectclass"))?,
            filter: self.filter(&option("filter"))?,
            id: self.need(&option("id_attribute"))?,
            name: self.need(&option("name_attribute"))?,
            description: self.text(description)?.filter(|_| !ignored.contains("description")),
            extra: extra.into_iter().filter(|(_, ours)| !ignored.contains(ours)).collect(),
        };
        Ok((class, ignored))
    }

    fn enabled(&self, users: &Class, ignored: bool) -> Result<Enabled, String> {
        let name = self.text("user_enabled_attribute")?;
        if self.flag("user_enabled_emulation")? {
            let like_groups = self.flag("user_enabled_emulation_use_group_config")?;
            let dn = self.text("user_enabled_emulation_dn")?;
            let dn = dn.unwrap_or_else(|| format!("cn=enabled_users,{}", users.tree));
            let attribute = if like_groups { self.need("group_member_attribute")? } else { "member".into() };
            let are_ids = like_groups && self.flag("group_members_are_ids")?;
            return Ok(if ignored { Enabled::Always } else { Enabled::Members { dn, attribute, are_ids } });
        }
        match (name, self.number("user_enabled_mask")?) {
            (Some(name), mask) if mask != 0 => {
                Ok(Enabled::Mask { name, usual: self.number("user_enabled_default")?, mask })
            }
            (Some(name), _) if !ignored => {
                let usual = self.text("user_enabled_default")?.unwrap_or_default();
                Ok(Enabled::Attribute { name, usual, invert: self.flag("user_enabled_invert")? })
            }
            _ => Ok(Enabled::Always),
        }
    }
}

fn url(text: &str) -> Option<Url> {
    let (tls, rest) = match text.split_once("://")? {
        (scheme, rest) if scheme.eq_ignore_ascii_case("ldaps") => (true, rest),
        (scheme, rest) if scheme.eq_ignore_ascii_case("ldap") => (false, rest),
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let usual = if tls { "636" } else { "389" };
    let (host, port) = match authority.strip_prefix('[') {
        Some(six) => {
            let (host, after) = six.split_once(']')?;
            (host, after.strip_prefix(':').or(after.is_empty().then_some(usual))?)
        }
        None => authority.split_once(':').unwrap_or((authority, usual)),
    };
    let fine = !host.is_empty() && host.len() <= 255 && host.bytes().all(|b| b.is_ascii_graphic() && b != b'@');
    Some(Url { tls, host: host.to_owned(), port: port.parse().ok().filter(|port| *port > 0)? }).filter(|_| fine)
}

fn server(options: &Options) -> Result<Server, String> {
    let text = options.need("url")?;
    let texts = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|text| !text.is_empty());
    let urls: Vec<Url> =
        texts.map(url).collect::<Option<_>>().ok_or("url is not of the form ldap://host or ldaps://host")?;
    let start_tls = options.flag("use_tls")?;
    if urls.is_empty() || urls.len() > URLS {
        return Err(format!("url names no server, or more than {URLS}"));
    }
    if start_tls && urls.iter().any(|url| url.tls) {
        return Err("use_tls and ldaps:// exclude each other".into());
    }
    let certificates = match options.text("tls_req_cert")?.as_deref() {
        Some("never" | "allow") => Certificates::Any,
        Some("demand") | None => match (options.text("tls_cacertfile")?, options.text("tls_cacertdir")?) {
            (Some(file), _) => Certificates::File(file.into()),
            (None, Some(folder)) => Certificates::Folder(folder.into()),
            (None, None) => Certificates::System,
        },
        _ => return Err("tls_req_cert is none of demand, allow and never".into()),
    };
    Ok(Server { urls, start_tls, certificates })
}

impl Settings {
    /// Says which option is wrong, and how.
    pub fn read(config: &DomainConfig) -> Result<Settings, String> {
        let options = Options { given: config.groups.get("ldap"), usual: crate::domain::config::ldap() };
        let identity = Options { given: config.groups.get("identity"), usual: Value::Null };
        let (users, ignored) = options.class("user", "ou=Users")?;
        let (groups, _) = options.class("group", "ou=UserGroups")?;
        let shown =
            |option: &str, name: &str| Ok::<_, String>(options.text(option)?.filter(|_| !ignored.contains(name)));
        let limit = identity.number("list_limit")?;
        Ok(Settings {
            server: server(&options)?,
            user: options.text("user")?,
            scope: match options.need("query_scope")?.as_str() {
                "one" => Scope::One,
                "sub" => Scope::Sub,
                _ => return Err("query_scope is neither one nor sub".into()),
            },
            dereference: match options.need("alias_dereferencing")?.as_str() {
                "never" | "default" => Dereference::Never,
                "searching" => Dereference::Searching,
                "finding" => Dereference::Finding,
                "always" => Dereference::Always,
                _ => return Err("alias_dereferencing is none of default, never, searching, finding and always".into()),
            },
            page_size: options.number("page_size")?.clamp(0, PAGE as i64) as u32,
            list_limit: usize::try_from(limit).ok().filter(|limit| *limit > 0),
            mail: shown("user_mail_attribute", "email")?,
            default_project: shown("user_default_project_id_attribute", "default_project_id")?,
            enabled: options.enabled(&users, ignored.contains("enabled"))?,
            users,
            groups,
            member: options.need("group_member_attribute")?,
            members_are_ids: options.flag("group_members_are_ids")?,
        })
    }
}

#[cfg(test)]
pub(super) fn of(ldap: Value) -> Result<Settings, String> {
    let groups = serde_json::from_value(serde_json::json!({"identity": {"driver": "ldap"}, "ldap": ldap})).unwrap();
    Settings::read(&DomainConfig { id: "corp".into(), groups })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keystones_defaults_hold() {
        let settings = of(json!({"suffix": "dc=x"})).unwrap();
        let here = Url { tls: false, host: "localhost".into(), port: 389 };
        assert_eq!(settings.server, Server { urls: vec![here], start_tls: false, certificates: Certificates::System });
        assert_eq!(
            (settings.users.tree.as_str(), settings.groups.tree.as_str()),
            ("ou=Users,dc=x", "ou=UserGroups,dc=x")
        );
        assert_eq!((settings.users.id.as_str(), settings.users.name.as_str()), ("cn", "sn"));
        assert_eq!((settings.groups.id.as_str(), settings.groups.name.as_str()), ("cn", "ou"));
        let enabled = Enabled::Attribute { name: "enabled".into(), usual: "True".into(), invert: false };
        assert_eq!(settings.enabled, enabled);
        assert_eq!(settings.default_project, None, "it is ignored unless somebody says otherwise");
    }

    #[test]
    fn urls() {
        let all = |text: &str| of(json!({ "url": text })).map(|settings| settings.server.urls);
        let two = all("ldaps://a.example:6360, ldaps://[::1]").unwrap();
        assert_eq!(
            two,
            [Url { tls: true, host: "a.example".into(), port: 6360 }, Url { tls: true, host: "::1".into(), port: 636 },]
        );
        for wrong in
            ["", "a.example", "http://a", "ldap://", "ldap://a:0", "ldap://a:x", "ldapi:///run/x", "ldap://u@a"]
        {
            assert!(all(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_may_be_text_and_what_is_wrong_is_named() {
        let settings =
            of(json!({"user_enabled_mask": "2", "user_enabled_default": "512", "group_members_are_ids": "true",
            "user_enabled_attribute": "userAccountControl", "page_size": 100,
            "user_additional_attribute_mapping": "telephoneNumber:phone, l:city"}))
            .unwrap();
        assert_eq!(settings.enabled, Enabled::Mask { name: "userAccountControl".into(), usual: 512, mask: 2 });
        assert!(settings.members_are_ids && settings.page_size == 100);
        assert_eq!(settings.users.extra[1], ("l".into(), "city".into()));
        for (option, value) in [
            ("user_filter", json!("(uid=a")),
            ("query_scope", json!("two")),
            ("user_enabled_mask", json!("x")),
            ("use_tls", json!("perhaps")),
            ("user_tree_dn", json!("people")),
            ("tls_req_cert", json!("maybe")),
            ("user_id_attribute", json!("")),
            ("user_attribute_ignore", json!([1])),
            ("alias_dereferencing", json!("no")),
        ] {
            let why = of(json!({ option: value })).unwrap_err();
            assert!(why.contains(option), "{option}: {why}");
        }
        assert!(of(json!({"url": "ldaps://a", "use_tls": true})).unwrap_err().contains("exclude"));
    }
}
