//! The language of mappings: what an identity provider says of somebody goes in, a user with groups and projects comes
//! out. Keystone's, in the versions 1.0, 2.0 (domains of projects) and 3.0 (projects as JSON, kept in step).
//!
//! Pure, and total over whatever a provider says. Patterns are matched in linear time; what such a matcher cannot do
//! (look-around, back references) is refused when the mapping is made.

use super::text;
use base::{Fault, Result};
use regex_automata::nfa::thompson::{self, pikevm::PikeVM};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Bounds of a mapping.
const RULES: usize = 256;
const PARTS: usize = 64;
const VALUES: usize = 1024;
const PATTERN_BYTES: usize = 1 << 16;
/// The most groups and projects that one login can come to.
const GROUPS: usize = 256;
const PROJECTS: usize = 256;

/// What a provider says: attributes and their values.
pub type Assertion = BTreeMap<String, Vec<String>>;

/// A mapping, ready to be applied.
#[derive(Debug)]
pub struct Rules {
    version: Version,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    V1,
    V2,
    V3,
}

/// By id or by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with id or name")]
pub struct DomainRef {
    pub id: Option<String>,
    pub name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with local and remote")]
struct Rule {
    local: Vec<Local>,
    remote: Vec<Remote>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Local {
    user: Option<LocalUser>,
    group: Option<LocalGroup>,
    groups: Option<String>,
    group_ids: Option<String>,
    domain: Option<DomainRef>,
    projects: Option<Vec<LocalProject>>,
    projects_json: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct LocalUser {
    id: Option<String>,
    name: Option<String>,
    email: Option<String>,
    domain: Option<DomainRef>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with id, or with name and domain")]
struct LocalGroup {
    id: Option<String>,
    name: Option<String>,
    domain: Option<DomainRef>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with name and roles")]
struct LocalProject {
    name: String,
    roles: Vec<LocalRole>,
    domain: Option<DomainRef>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with name")]
struct LocalRole {
    name: String,
}

/// What a provider must say for a rule to apply.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with type")]
struct Remote {
    #[serde(rename = "type")]
    attribute: String,
    any_one_of: Option<Vec<String>>,
    not_any_of: Option<Vec<String>>,
    blacklist: Option<Vec<String>>,
    whitelist: Option<Vec<String>>,
    regex: Option<bool>,
}

/// Who somebody is here.
#[derive(Debug, Default, PartialEq)]
pub struct Mapped {
    pub id: Option<String>,
    pub name: Option<String>,
    pub email: Option<String>,
    pub domain: Option<DomainRef>,
    /// A user of this cloud, and not one of the provider.
    pub local: bool,
    pub group_ids: BTreeSet<String>,
    pub group_names: Vec<(String, DomainRef)>,
    pub projects: Vec<MappedProject>,
    /// What the provider no longer says is taken away.
    pub in_step: bool,
}

#[derive(Debug, PartialEq)]
pub struct MappedProject {
    pub name: String,
    pub domain: Option<DomainRef>,
    pub roles: Vec<String>,
}

impl Rules {
    /// Invalid for anything that is not a mapping of this version, with the place and what would be right.
    pub fn read(version: &str, rules: &Value) -> Result<Rules> {
        let version = match version {
            "1.0" => Version::V1,
            "2.0" => Version::V2,
            "3.0" => Version::V3,
            _ => return Err(wrong(format!("schema_version '{version:.16}' is none of 1.0, 2.0 and 3.0"))),
        };
        let rules: Vec<Rule> = Vec::deserialize(rules).map_err(|error| wrong(error.to_string()))?;
        if rules.is_empty() || rules.len() > RULES {
            return Err(wrong(format!("there are {} rules, and may be 1 to {RULES}", rules.len())));
        }
        let read = Rules { version, rules };
        read.rules.iter().enumerate().try_for_each(|(at, rule)| {
            read.check(rule).map_err(|fault| wrong(format!("rule {at}: {}", fault.message)))
        })?;
        Ok(read)
    }

    fn check(&self, rule: &Rule) -> Result<()> {
        let say = |why: &str| Err(Fault::invalid(why));
        if rule.remote.is_empty() || rule.remote.len() > PARTS || rule.local.len() > PARTS {
            return say("local has at most 64 entries, and remote 1 to 64");
        }
        rule.remote.iter().try_for_each(Remote::check)?;
        let places = rule.remote.iter().filter(|remote| remote.is_mapped()).count();
        for local in &rule.local {
            if local.projects_json.is_some() && self.version < Version::V3 {
                return say("projects_json needs schema_version 3.0");
            }
            if local.projects.iter().flatten().any(|project| project.domain.is_some()) && self.version < Version::V2 {
                return say("a domain of a project needs schema_version 2.0");
            }
            let kind = local.user.as_ref().and_then(|user| user.kind.as_deref());
            if kind.is_some_and(|kind| kind != "ephemeral" && kind != "local") {
                return say("the type of a user is ephemeral or local");
            }
            if let Some(group) = &local.group {
                let by_id = group.id.is_some() && group.name.is_none() && group.domain.is_none();
                let by_name = group.id.is_none() && group.name.is_some() && group.domain.is_some();
                if !by_id && !by_name {
                    return say("a group has an id, or a name and a domain");
                }
            }
            local.texts().try_for_each(|pattern| text::check(pattern, places))?;
        }
        Ok(())
    }

    /// Applies the rules. Unauthenticated, with the reason for the log, where none fits.
    pub fn apply(&self, assertion: &Assertion) -> Result<Mapped> {
        let mut mapped = Mapped { in_step: self.version == Version::V3, ..Mapped::default() };
        let (mut user, mut user_domain, mut last_domain) = (None, None, None);
        let mut any = false;
        for rule in &self.rules {
            let Some(values) = rule.fits(assertion) else { continue };
            for local in &rule.local {
                any = true;
                let domain = local.domain.as_ref().map(|domain| filled_domain(domain, &values)).transpose()?;
                if let (None, Some(found)) = (&user, &local.user) {
                    user = Some(filled_user(found, &values)?);
                    user_domain = domain.clone();
                }
                self.groups(local, domain.as_ref(), &values, &mut mapped)?;
                if let Some(projects) = self.projects(local, domain.as_ref(), &values)? {
                    mapped.projects = projects;
                }
                last_domain = domain;
            }
        }
        if !any {
            return Err(refused("no rule of the mapping fits what the identity provider says"));
        }
        if mapped.group_ids.len() + mapped.group_names.len() > GROUPS || mapped.projects.len() > PROJECTS {
            return Err(refused("the mapping comes to more groups or projects than are taken"));
        }
        let user = user.unwrap_or_default();
        mapped.local = user.kind.as_deref() == Some("local");
        let named = if self.version == Version::V1 { None } else { last_domain.or(user_domain) };
        mapped.domain = user.domain.or(named);
        (mapped.id, mapped.name, mapped.email) = (user.id, user.name, user.email);
        Ok(mapped)
    }

    fn groups(
        &self,
        local: &Local,
        domain: Option<&DomainRef>,
        values: &[Vec<String>],
        mapped: &mut Mapped,
    ) -> Result<()> {
        if let Some(group) = &local.group {
            match (&group.id, &group.name, &group.domain) {
                (Some(id), ..) => {
                    mapped.group_ids.insert(text::fill(id, values)?);
                }
                (None, Some(name), Some(domain)) => {
                    let named = (text::fill(name, values)?, filled_domain(domain, values)?);
                    if !mapped.group_names.contains(&named) {
                        mapped.group_names.push(named);
                    }
                }
                _ => {}
            }
        }
        if let Some(groups) = &local.groups {
            for name in text::list(groups, values)? {
                let named = match name.strip_prefix("JSON:") {
                    Some(json) => {
                        let group: LocalGroup = serde_json::from_str(json)
                            .map_err(|_| refused("a group that begins with JSON: is no object with name and domain"))?;
                        group.name.zip(group.domain)
                    }
                    None => domain.cloned().map(|domain| (name, domain)),
                };
                let named = named.ok_or_else(|| refused("groups are named without a domain"))?;
                if !mapped.group_names.contains(&named) {
                    mapped.group_names.push(named);
                }
            }
        }
        if let Some(ids) = &local.group_ids {
            mapped.group_ids.extend(text::list(ids, values)?);
        }
        Ok(())
    }

    /// None where the entry says nothing of projects.
    fn projects(
        &self,
        local: &Local,
        domain: Option<&DomainRef>,
        values: &[Vec<String>],
    ) -> Result<Option<Vec<MappedProject>>> {
        if local.projects.is_none() && local.projects_json.is_none() {
            return Ok(None);
        }
        let mut projects = Vec::new();
        for project in local.projects.iter().flatten() {
            let roles = project.roles.iter().map(|role| text::fill(&role.name, values)).collect::<Result<_>>()?;
            let own = project.domain.as_ref().map(|domain| filled_domain(domain, values)).transpose()?;
            projects.push(MappedProject { name: text::fill(&project.name, values)?, domain: own, roles });
        }
        if let Some(json) = &local.projects_json {
            let given: Vec<LocalProject> = serde_json::from_str(&text::fill(json, values)?)
                .map_err(|_| refused("projects_json is no list of projects with name and roles"))?;
            projects.extend(given.into_iter().map(|project| MappedProject {
                name: project.name,
                domain: project.domain,
                roles: project.roles.into_iter().map(|role| role.name).collect(),
            }));
        }
        if self.version > Version::V1 {
            for project in &mut projects {
                project.domain = project.domain.take().or_else(|| domain.cloned());
            }
        }
        Ok(Some(projects))
    }
}

fn wrong(why: String) -> Fault {
    Fault::invalid(format!("Invalid mapping: {why}."))
}

fn refused(why: &str) -> Fault {
    crate::token::verify::refused(why)
}

fn filled(pattern: &Option<String>, values: &[Vec<String>]) -> Result<Option<String>> {
    pattern.as_ref().map(|pattern| text::fill(pattern, values)).transpose()
}

fn filled_domain(domain: &DomainRef, values: &[Vec<String>]) -> Result<DomainRef> {
    Ok(DomainRef { id: filled(&domain.id, values)?, name: filled(&domain.name, values)? })
}

fn filled_user(user: &LocalUser, values: &[Vec<String>]) -> Result<LocalUser> {
    Ok(LocalUser {
        id: filled(&user.id, values)?,
        name: filled(&user.name, values)?,
        email: filled(&user.email, values)?,
        domain: user.domain.as_ref().map(|domain| filled_domain(domain, values)).transpose()?,
        kind: user.kind.clone(),
    })
}

impl Local {
    /// Everything into which values are filled.
    fn texts(&self) -> impl Iterator<Item = &String> {
        fn domain(domain: &Option<DomainRef>) -> [Option<&String>; 2] {
            let domain = domain.as_ref();
            [domain.and_then(|d| d.id.as_ref()), domain.and_then(|d| d.name.as_ref())]
        }
        let mut all = vec![self.groups.as_ref(), self.group_ids.as_ref(), self.projects_json.as_ref()];
        all.extend(domain(&self.domain));
        if let Some(user) = &self.user {
            all.extend([user.id.as_ref(), user.name.as_ref(), user.email.as_ref()]);
            all.extend(domain(&user.domain));
        }
        if let Some(group) = &self.group {
            all.extend([group.id.as_ref(), group.name.as_ref()]);
            all.extend(domain(&group.domain));
        }
        for project in self.projects.iter().flatten() {
            all.push(Some(&project.name));
            all.extend(domain(&project.domain));
            all.extend(project.roles.iter().map(|role| Some(&role.name)));
        }
        all.into_iter().flatten()
    }
}

impl Rule {
    /// The values that stand for `{0}`, `{1}`, …; none if the rule does not apply.
    fn fits(&self, assertion: &Assertion) -> Option<Vec<Vec<String>>> {
        let mut values = Vec::new();
        for remote in &self.remote {
            let said = assertion.get(&remote.attribute).filter(|said| !said.is_empty())?;
            let matched: Vec<bool> = remote.matched(said);
            let keep = |wanted: bool| {
                let mut seen = BTreeSet::new();
                let kept = said.iter().zip(&matched).filter(|(_, hit)| **hit == wanted).map(|(value, _)| value);
                kept.filter(|value| seen.insert((*value).clone())).cloned().collect::<Vec<_>>()
            };
            if remote.any_one_of.is_some() {
                matched.contains(&true).then_some(())?;
            } else if remote.not_any_of.is_some() {
                (!matched.contains(&true)).then_some(())?;
            } else if remote.blacklist.is_some() {
                values.push(keep(false));
            } else if remote.whitelist.is_some() {
                values.push(keep(true));
            } else {
                values.push(said.clone());
            }
        }
        Some(values)
    }
}

impl Remote {
    fn lists(&self) -> [&Option<Vec<String>>; 4] {
        [&self.any_one_of, &self.not_any_of, &self.blacklist, &self.whitelist]
    }

    /// It stands for a `{n}`.
    fn is_mapped(&self) -> bool {
        self.any_one_of.is_none() && self.not_any_of.is_none()
    }

    fn check(&self) -> Result<()> {
        let lists = self.lists().into_iter().flatten().count();
        if lists > 1 || lists == 0 && self.regex.is_some() {
            return Err(Fault::invalid(format!(
                "what is said of {} has at most one of any_one_of, not_any_of, blacklist and whitelist, and regex only with one",
                self.attribute
            )));
        }
        let values = self.lists().into_iter().flatten().flatten();
        if values.clone().count() > VALUES {
            return Err(Fault::invalid(format!("what is said of {} has more than {VALUES} values", self.attribute)));
        }
        if self.regex == Some(true) {
            for pattern in values {
                compile(pattern).map_err(|error| {
                    Fault::invalid(format!("the pattern '{pattern:.80}' of {} cannot be read: {error}", self.attribute))
                })?;
            }
        }
        Ok(())
    }

    /// Which of the values are in the requirement's list.
    fn matched(&self, said: &[String]) -> Vec<bool> {
        let listed: Vec<&String> = self.lists().into_iter().flatten().flatten().collect();
        if self.regex != Some(true) {
            return said.iter().map(|value| listed.contains(&value)).collect();
        }
        let patterns: Vec<PikeVM> = listed.iter().filter_map(|pattern| compile(pattern).ok()).collect();
        let mut caches: Vec<_> = patterns.iter().map(PikeVM::create_cache).collect();
        let mut hit = |value: &String| {
            patterns.iter().zip(&mut caches).any(|(pattern, cache)| pattern.is_match(cache, value.as_str()))
        };
        said.iter().map(&mut hit).collect()
    }
}

fn compile(pattern: &str) -> std::result::Result<PikeVM, Box<thompson::BuildError>> {
    let config = thompson::Config::new().nfa_size_limit(Some(PATTERN_BYTES));
    PikeVM::builder().thompson(config).build(pattern).map_err(Box::new)
}
