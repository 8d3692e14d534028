//! Who may create, read, change and delete which custom properties, in the form of Glance's file of property
//! protections. The first section whose pattern is found in a property's name decides; a property that no section names
//! is nobody's.
//!
//! What an image of a server or a volume inherits of its own image is not asked for here: it was allowed there, and
//! follows the bytes.

use crate::document::Image;
use base::{Fault, Result};
use contract::Caller;
use policy::{Policy, Target};
use regex_automata::nfa::thompson;
use regex_automata::nfa::thompson::pikevm::{Cache, PikeVM};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use store::Stored;

/// The most sections of a file, and bytes of a pattern when it is compiled.
const SECTIONS: usize = 1_000;
const PATTERN_BYTES: usize = 1 << 20;

/// What is done to a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Create,
    Read,
    Update,
    Delete,
}

const ACTIONS: [(&str, Action); 4] =
    [("create", Action::Create), ("read", Action::Read), ("update", Action::Update), ("delete", Action::Delete)];

/// What the words of the file name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Roles, with commas between them.
    #[default]
    Roles,
    /// One rule of the policy.
    Policies,
}

#[derive(Debug, PartialEq, Eq)]
enum Holders {
    Everybody,
    Nobody,
    Roles(Vec<String>),
    Rule(String),
}

/// A pattern with its scratch space, which costs more to make than a look at a name.
struct Pattern(PikeVM, Mutex<Cache>);

impl Pattern {
    fn finds(&self, text: &str) -> bool {
        let mut cache = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.is_match(&mut cache, text)
    }
}

struct Section {
    pattern: Pattern,
    /// In the order of [`ACTIONS`].
    holders: [Holders; 4],
}

/// All sections. Without a file there are none, and everybody may do everything.
#[derive(Default)]
pub struct Protections(Option<(Vec<Section>, Arc<Policy>)>);

impl fmt::Debug for Protections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sections = self.0.as_ref().map(|(sections, _)| sections.len());
        f.debug_struct("Protections").field("sections", &sections).finish()
    }
}

impl Protections {
    /// # Errors
    /// Invalid, with the line, for what is not understood: a file that protects less than it seems to would be worse.
    pub fn read(text: &str, format: Format, policy: Arc<Policy>) -> Result<Protections> {
        let mut sections: Vec<Section> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let refuse = |why: String| Fault::invalid(format!("property protections, line {number}: {why}"));
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                if sections.len() == SECTIONS {
                    return Err(refuse(format!("there may be at most {SECTIONS} sections")));
                }
                let config = thompson::Config::new().nfa_size_limit(Some(PATTERN_BYTES));
                let vm = PikeVM::builder().thompson(config).build(name);
                let vm = vm.map_err(|error| refuse(format!("'{name}' is no pattern: {error}")))?;
                let cache = Mutex::new(vm.create_cache());
                let holders = [Holders::Nobody, Holders::Nobody, Holders::Nobody, Holders::Nobody];
                sections.push(Section { pattern: Pattern(vm, cache), holders });
                continue;
            }
            let (key, value) = line.split_once(['=', ':']).ok_or_else(|| refuse("it has no '='".to_owned()))?;
            let (key, value) = (key.trim(), value.trim());
            let section = sections.last_mut().ok_or_else(|| refuse("it stands before the first section".to_owned()))?;
            let at = ACTIONS.iter().position(|(name, _)| *name == key);
            let at = at.ok_or_else(|| refuse(format!("'{key}' is none of create, read, update and delete")))?;
            section.holders[at] = holders(value, format, &policy).map_err(refuse)?;
        }
        Ok(Protections(Some((sections, policy))))
    }

    /// Whether the caller may do that to a property of this name.
    pub fn may(&self, caller: &Caller, action: Action, name: &str) -> bool {
        let Some((sections, policy)) = &self.0 else { return true };
        let Some(section) = sections.iter().find(|section| section.pattern.finds(name)) else { return false };
        match &section.holders[action as usize] {
            Holders::Everybody => true,
            Holders::Nobody => false,
            Holders::Roles(roles) => roles.iter().any(|role| caller.has_role(role)),
            Holders::Rule(rule) => {
                let project = caller.project_id();
                policy.allows(rule, &caller.credentials, &Target::project(project.as_deref()))
            }
        }
    }

    /// # Errors
    /// Forbidden.
    pub fn need(&self, caller: &Caller, action: Action, name: &str) -> Result<()> {
        if self.may(caller, action, name) {
            return Ok(());
        }
        let what = ACTIONS[action as usize].0;
        Err(Fault::forbidden(format!("Property '{name}' is protected: you may not {what} it.")))
    }

    /// Leaves what the caller may see of an image.
    pub fn shown(&self, caller: &Caller, mut image: Stored<Image>) -> Stored<Image> {
        if self.0.is_some() {
            image.doc.properties.retain(|name, _| self.may(caller, Action::Read, name));
        }
        image
    }
}

/// `@` is everybody and `!` nobody, as in Glance.
fn holders(value: &str, format: Format, policy: &Policy) -> Result<Holders, String> {
    let words: Vec<&str> = value.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    match (words.contains(&"@"), words.contains(&"!")) {
        (true, true) => Err("'@' and '!' exclude each other".to_owned()),
        (true, false) => Ok(Holders::Everybody),
        (false, true) => Ok(Holders::Nobody),
        (false, false) if words.is_empty() => Ok(Holders::Nobody),
        (false, false) if format == Format::Roles => Ok(Holders::Roles(words.into_iter().map(str::to_owned).collect())),
        (false, false) => match words.as_slice() {
            [rule] if policy.contains(rule) => Ok(Holders::Rule((*rule).to_owned())),
            [rule] => Err(format!("the policy has no rule '{rule}'")),
            _ => Err("it names more than one rule of the policy".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Credentials;

    fn policy() -> Arc<Policy> {
        Arc::new(Policy::joined(&[crate::RULES], None).unwrap())
    }

    fn caller(roles: &[&str]) -> Caller {
        let roles = roles.iter().map(|role| (*role).into()).collect();
        let credentials = Credentials { roles, project_id: Some("p".into()), ..Credentials::default() };
        Caller { credentials, token: None }
    }

    #[test]
    fn the_first_section_that_fits_decides() {
        let text = "# billing\n[^x_billing_]\ncreate = admin, billing\nread: @\nupdate = !\n\n[x_.*]\nread = member\n\
                    create = @\n";
        let protections = Protections::read(text, Format::Roles, policy()).unwrap();
        for (roles, action, name, may) in [
            (&["Billing"][..], Action::Create, "x_billing_code", true),
            (&["member"], Action::Create, "x_billing_code", false),
            (&["member"], Action::Read, "x_billing_code", true),
            (&["admin"], Action::Update, "x_billing_code", false),
            (&["admin"], Action::Delete, "x_billing_code", false),
            (&["member"], Action::Read, "my_x_note", true),
            (&["reader"], Action::Read, "my_x_note", false),
            (&["reader"], Action::Create, "my_x_note", true),
            (&["admin"], Action::Read, "os_distro", false),
        ] {
            assert_eq!(protections.may(&caller(roles), action, name), may, "{roles:?} {action:?} {name}");
        }
        assert!(Protections::default().may(&caller(&[]), Action::Delete, "anything"));
        let none = Protections::read("", Format::Roles, policy()).unwrap();
        assert!(!none.may(&caller(&["admin"]), Action::Read, "anything"), "a file that names nothing protects all");
    }

    #[test]
    fn rules_of_the_policy_decide_in_the_other_form() {
        let text = "[x_]\ncreate = context_is_admin\nread = get_images\n";
        let protections = Protections::read(text, Format::Policies, policy()).unwrap();
        assert!(protections.may(&caller(&["admin"]), Action::Create, "x_a"));
        assert!(!protections.may(&caller(&["member"]), Action::Create, "x_a"));
        assert!(protections.may(&caller(&["reader"]), Action::Read, "x_a"));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        for (text, format, why) in [
            ("create = @", Format::Roles, "line 1: it stands before the first section"),
            ("[a]\n\nwrite = @", Format::Roles, "line 3: 'write' is none of"),
            ("[a]\ncreate", Format::Roles, "line 2: it has no '='"),
            ("[a]\ncreate = @, !", Format::Roles, "line 2: '@' and '!' exclude each other"),
            ("[(]\n", Format::Roles, "line 1: '(' is no pattern"),
            ("[(?=a)b]\n", Format::Roles, "line 1: '(?=a)b' is no pattern"),
            ("[a{1000}{1000}{1000}]\n", Format::Roles, "is no pattern"),
            ("[a]\nread = absent", Format::Policies, "line 2: the policy has no rule 'absent'"),
            ("[a]\nread = get_image, get_images", Format::Policies, "more than one rule"),
        ] {
            let fault = Protections::read(text, format, policy()).unwrap_err();
            assert!(fault.message.contains(why), "{}", fault.message);
        }
        let many = "[a]\n".repeat(SECTIONS + 1);
        assert!(Protections::read(&many, Format::Roles, policy()).unwrap_err().message.contains("at most 1000"));
    }
}
