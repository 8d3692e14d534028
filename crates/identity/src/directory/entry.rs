//! What an entry of a directory means here: pure, and by the rules of Keystone.

use super::settings::{Class, Enabled, Settings};
use crate::documents::*;
use ldap::{Entry, Filter};
use rest::Call;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The most characters of a name or of an id.
const NAME_CHARS: usize = 255;
/// The most characters of another value.
const VALUE_CHARS: usize = 4096;
/// What is never shown under a name of an operator's own choice.
const OURS: &[&str] = &[
    "id",
    "name",
    "domain_id",
    "enabled",
    "password",
    "links",
    "options",
    "federated",
    "password_expires_at",
    "default_project_id",
];

/// The id by which a thing of a directory, or of an identity provider, is known here: that of Keystone's generator
/// `sha256`.
pub(crate) fn public_id(domain: &str, kind: &str, local_id: &str) -> String {
    let sum = Sha256::new().chain_update(domain).chain_update(kind).chain_update(local_id);
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A user as the directory has it now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Person {
    pub dn: String,
    pub local_id: String,
    pub name: String,
    pub enabled: bool,
    pub default_project: Option<String>,
    pub extra: Extra,
}

/// A group as the directory has it now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Circle {
    pub dn: String,
    pub local_id: String,
    pub name: String,
    pub description: Option<String>,
    pub extra: Extra,
}

fn short(text: &str, most: usize) -> Option<String> {
    (!text.contains('\0') && text.chars().count() <= most).then(|| text.to_owned())
}

/// The id of an entry. Of several values the one that names the entry, else the first.
fn local_id(entry: &Entry, class: &Class) -> Option<String> {
    let mut values = entry.texts(&class.id);
    let first = values.next()?;
    let named = values.next().and_then(|_| ldap::dn::first_value(&entry.dn, &class.id));
    short(&named.unwrap_or_else(|| first.to_owned()), NAME_CHARS).filter(|id| !id.is_empty())
}

/// An entry without a name is nobody, as in Keystone.
fn name(entry: &Entry, class: &Class) -> Option<String> {
    short(entry.text(&class.name)?, NAME_CHARS).filter(|name| !name.trim().is_empty())
}

fn value(entry: &Entry, attribute: Option<&String>) -> Option<String> {
    short(entry.text(attribute?)?, VALUE_CHARS)
}

fn extra(entry: &Entry, class: &Class) -> Extra {
    let shown = class.extra.iter().filter(|(_, ours)| !OURS.contains(&ours.as_str()));
    shown.filter_map(|(theirs, ours)| Some((ours.clone(), Value::from(value(entry, Some(theirs))?)))).collect()
}

impl Settings {
    /// None for an entry that is no user.
    pub fn person(&self, entry: &Entry) -> Option<Person> {
        let mut extra = extra(entry, &self.users);
        for (name, attribute) in [("email", &self.mail), ("description", &self.users.description)] {
            extra.extend(value(entry, attribute.as_ref()).map(|value| (name.to_owned(), value.into())));
        }
        Some(Person {
            local_id: local_id(entry, &self.users)?,
            name: name(entry, &self.users)?,
            enabled: self.enabled.of(entry),
            default_project: value(entry, self.default_project.as_ref()),
            dn: entry.dn.clone(),
            extra,
        })
    }

    /// None for an entry that is no group.
    pub fn circle(&self, entry: &Entry) -> Option<Circle> {
        Some(Circle {
            local_id: local_id(entry, &self.groups)?,
            name: name(entry, &self.groups)?,
            description: value(entry, self.groups.description.as_ref()),
            dn: entry.dn.clone(),
            extra: extra(entry, &self.groups),
        })
    }

    /// What is asked for of a user.
    pub fn of_people(&self) -> Vec<String> {
        let mut names = attributes(&self.users);
        names.extend(self.mail.iter().chain(&self.default_project).cloned());
        match &self.enabled {
            Enabled::Attribute { name, .. } | Enabled::Mask { name, .. } => names.push(name.clone()),
            Enabled::Always | Enabled::Members { .. } => {}
        }
        names
    }

    pub fn of_circles(&self) -> Vec<String> {
        attributes(&self.groups)
    }
}

fn attributes(class: &Class) -> Vec<String> {
    let mut names = vec![class.id.clone(), class.name.clone()];
    names.extend(class.description.iter().cloned().chain(class.extra.iter().map(|(theirs, _)| theirs.clone())));
    names
}

impl Enabled {
    /// By what the entry itself says; membership is asked for elsewhere.
    fn of(&self, entry: &Entry) -> bool {
        match self {
            Enabled::Always => true,
            Enabled::Members { .. } => false,
            // A value that is no number says nothing of the kind.
            Enabled::Mask { name, usual, mask } => {
                let said = entry.text(name).map_or(Some(*usual), |text| text.trim().parse().ok());
                said.is_some_and(|said| said & mask != *mask)
            }
            Enabled::Attribute { name, usual, invert } => {
                let said = entry.text(name).unwrap_or(usual).trim();
                let number = said.parse::<i64>().ok().filter(|_| name.eq_ignore_ascii_case("enabled"));
                let yes = said.eq_ignore_ascii_case("true") || number.is_some_and(|number| number != 0);
                yes != *invert
            }
        }
    }
}

impl Class {
    /// Entries of this kind that fit all of these.
    pub fn filter(&self, and: Vec<Filter>) -> Filter {
        let mut all = and;
        all.extend(self.filter.clone());
        all.push(Filter::equal("objectClass", &self.object_class));
        all.push(Filter::present(&self.id));
        Filter::And(all)
    }
}

/// What a list asks of names: comparisons that a directory can make, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Term(Vec<(&'static str, String)>);

const COMPARISONS: &[(&str, &str)] = &[
    ("name", ""),
    ("name__contains", "contains"),
    ("name__icontains", "contains"),
    ("name__startswith", "startswith"),
    ("name__istartswith", "startswith"),
    ("name__endswith", "endswith"),
    ("name__iendswith", "endswith"),
];

impl Term {
    pub fn of(call: &Call) -> Term {
        let asked = COMPARISONS.iter().filter_map(|(key, how)| Some((*how, call.query.get(key)?.to_owned())));
        Term(asked.filter(|(_, value)| !value.is_empty()).collect())
    }

    pub fn filters(&self, attribute: &str) -> Vec<Filter> {
        let filter = |(how, value): &(&str, String)| {
            let (attribute, part) = (attribute.to_owned(), value.as_bytes().to_vec());
            match *how {
                "contains" => Filter::Substrings(attribute, None, vec![part], None),
                "startswith" => Filter::Substrings(attribute, Some(part), Vec::new(), None),
                "endswith" => Filter::Substrings(attribute, None, Vec::new(), Some(part)),
                _ => Filter::Equal(attribute, part),
            }
        };
        self.0.iter().map(filter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::of;
    use super::*;
    use serde_json::json;

    fn entry(dn: &str, attributes: &[(&str, &str)]) -> Entry {
        let mut entry = Entry { dn: dn.into(), ..Entry::default() };
        for (name, value) in attributes {
            entry.attributes.entry((*name).into()).or_default().push(value.as_bytes().to_vec());
        }
        entry
    }

    #[test]
    fn ids_are_those_of_keystone() {
        // Of keystone.identity.generator with these three values.
        assert_eq!(
            public_id("7a1e1b0c3a5f4b7f8f0f6a2d4d1c9e55", "user", "ada"),
            "a15c14f9c8f9ddd03658d59734817cba2d49861274c25f92a816ac843a2cbfd0"
        );
    }

    #[test]
    fn who_is_enabled() {
        let check = |options: Value, said: Option<&str>, enabled: bool| {
            let mut all = json!({"user_id_attribute": "uid", "user_enabled_attribute": "enabled"});
            all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
            let mut of_user = vec![("uid", "a"), ("sn", "A")];
            of_user.extend(said.map(|said| ("enabled", said)));
            let person = of(all).unwrap().person(&entry("uid=a", &of_user)).unwrap();
            assert_eq!(person.enabled, enabled, "{options} {said:?}");
        };
        for (said, enabled) in [
            (None, true),
            (Some("TRUE"), true),
            (Some("FALSE"), false),
            (Some("1"), true),
            (Some("0"), false),
            (Some("x"), false),
        ] {
            check(json!({}), said, enabled);
            check(json!({"user_enabled_invert": true}), said, !enabled);
            check(json!({"user_attribute_ignore": ["enabled"]}), said, true);
        }
        let mask = json!({"user_enabled_mask": 2, "user_enabled_default": 512});
        for (said, enabled) in
            [(None, true), (Some("512"), true), (Some("514"), false), (Some("2"), false), (Some("x"), false)]
        {
            check(mask.clone(), said, enabled);
        }
        check(json!({"user_enabled_emulation": true}), Some("TRUE"), false);
    }

    #[test]
    fn what_is_taken_of_an_entry() {
        let settings =
            of(json!({"user_id_attribute": "UID", "user_additional_attribute_mapping": ["l:city", "uid:id"]})).unwrap();
        let all =
            entry("uid=ada,dc=x", &[("uid", "ada"), ("sn", "Ada"), ("mail", "ada@x"), ("mail", "b@x"), ("l", "Rome")]);
        let person = settings.person(&all).unwrap();
        assert_eq!((person.local_id.as_str(), person.name.as_str()), ("ada", "Ada"));
        assert_eq!(Value::Object(person.extra), json!({"email": "ada@x", "city": "Rome"}));
        let two = entry("uid=b,dc=x", &[("uid", "a"), ("uid", "b"), ("sn", "N")]);
        assert_eq!(settings.person(&two).unwrap().local_id, "b", "the one that names the entry");
        for nobody in [&[("uid", "a")][..], &[("uid", "a"), ("sn", "  ")], &[("sn", "N")], &[("uid", ""), ("sn", "N")]]
        {
            assert_eq!(settings.person(&entry("cn=x", nobody)), None, "{nobody:?}");
        }
        let long = "x".repeat(256);
        assert_eq!(settings.person(&entry("cn=x", &[("uid", &long), ("sn", "N")])), None);
        let mut binary = entry("cn=x", &[("sn", "N")]);
        binary.attributes.insert("uid".into(), vec![vec![0xff, 0]]);
        assert_eq!(settings.person(&binary), None);
    }
}
