//! Who may do what: the oslo.policy language over one set of rules.
//!
//! Owns the language (parser, syntax tree, evaluation), the shared base rules of the reader, member, manager, admin and
//! service roles, and the overrides of a `policy.yaml`. Must never do I/O: text is handed in. Everything is parsed and
//! checked once, in [`Policy::new`]; a rule that cannot be read, refers to nothing or to itself is an error there and
//! never a silent refusal later. Evaluation allocates nothing for the usual checks.

mod base_rules;
mod check;
mod credentials;
mod explain;
mod overrides;
mod parse;
mod target;

#[cfg(test)]
mod tests;

pub use base_rules::BASE;
pub use credentials::Credentials;
pub use explain::{Explanation, Step};
pub use target::{Target, Value};

use base::{Fault, Result};
use check::{Check, World};
use std::collections::HashMap;

/// The deepest nesting of parentheses and `not`, and the longest chain of rules that refer to rules.
pub const DEPTH: usize = 64;
/// The most checks that one decision may evaluate, all references followed.
const COST: u64 = 100_000;

/// What a token may be scoped to for a rule to be considered at all. An unscoped token counts as project, as in OpenStack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Project,
    Domain,
    System,
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Project => "project",
            Scope::Domain => "domain",
            Scope::System => "system",
        }
    }
}

/// A default: part of a service's code, so static. An empty `scope` takes every token.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub name: &'static str,
    pub check: &'static str,
    pub scope: &'static [Scope],
    pub description: &'static str,
}

impl Rule {
    pub const fn new(
        name: &'static str,
        check: &'static str,
        scope: &'static [Scope],
        description: &'static str,
    ) -> Rule {
        Rule { name, check, scope, description }
    }
}

/// The answer to one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allowed,
    Denied,
    /// The rule takes no token of this scope.
    WrongScope,
}

struct Entry {
    name: Box<str>,
    scope: &'static [Scope],
    check: Check,
    /// The text in force, as `sample` shows it.
    text: Box<str>,
    default: Option<&'static Rule>,
}

/// A rule in force, for listings.
#[derive(Debug)]
pub struct Listed<'a> {
    pub name: &'a str,
    pub check: &'a str,
    /// None for a rule that only the overrides define.
    pub default: Option<&'static Rule>,
}

/// All rules, parsed. Immutable: a changed `policy.yaml` makes a new one.
pub struct Policy {
    entries: Vec<Entry>,
    by_name: HashMap<Box<str>, usize>,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("rules", &self.entries.len()).finish()
    }
}

impl Policy {
    /// Parses the base rules, `defaults` and the text of a `policy.yaml`.
    ///
    /// The same default may be given twice if both agree. An override may replace a default, or define a helper that
    /// some other rule refers to; any other name is an error that tells the line.
    pub fn new(defaults: &'static [Rule], overrides_yaml: Option<&str>) -> Result<Policy> {
        Policy::joined(&[defaults], overrides_yaml)
    }

    /// As [`Policy::new`], for the defaults of several services.
    pub fn joined(defaults: &[&'static [Rule]], overrides_yaml: Option<&str>) -> Result<Policy> {
        let mut sources = Sources::default();
        for rule in std::iter::once(&BASE).chain(defaults).flat_map(|rules| rules.iter()) {
            sources.add(rule)?;
        }
        for found in overrides_yaml.map(overrides::read).transpose()?.unwrap_or_default() {
            sources.replace(found)?;
        }
        sources.finish()
    }

    /// True if `rule` allows it. An unknown rule allows nothing.
    pub fn allows(&self, rule: &str, creds: &Credentials, target: &Target) -> bool {
        self.check(rule, creds, target) == Decision::Allowed
    }

    /// Decides, telling a token of the wrong scope from one without the right.
    pub fn check(&self, rule: &str, creds: &Credentials, target: &Target) -> Decision {
        let Some(entry) = self.by_name.get(rule).map(|&index| &self.entries[index]) else {
            return Decision::Denied;
        };
        if !entry.scope.is_empty() && !entry.scope.contains(&creds.scope()) {
            return Decision::WrongScope;
        }
        let world = World { entries: &self.entries, creds, target };
        if entry.check.holds(&world) { Decision::Allowed } else { Decision::Denied }
    }

    /// True if there is such a rule: route tables are tested with it.
    pub fn contains(&self, rule: &str) -> bool {
        self.by_name.contains_key(rule)
    }

    /// Every rule in force: base rules, then defaults in their order, then helpers of the overrides.
    pub fn rules(&self) -> impl Iterator<Item = Listed<'_>> {
        self.entries.iter().map(|e| Listed { name: &e.name, check: &e.text, default: e.default })
    }

    /// A `policy.yaml` with every default in it, commented out.
    pub fn sample(&self) -> String {
        let mut text = String::new();
        for rule in self.entries.iter().filter_map(|e| e.default) {
            for line in rule.description.lines() {
                text.push_str(&format!("# {line}\n"));
            }
            if !rule.scope.is_empty() {
                let scopes: Vec<_> = rule.scope.iter().map(|s| s.as_str()).collect();
                text.push_str(&format!("# Scope: {}\n", scopes.join(", ")));
            }
            text.push_str(&format!("#{}: {}\n\n", quoted(rule.name), quoted(rule.check)));
        }
        text
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The rules while they are gathered: parsed, with references still by name.
#[derive(Default)]
struct Sources {
    entries: Vec<Entry>,
    by_name: HashMap<Box<str>, usize>,
    /// Line of the override that gave each entry its text.
    lines: HashMap<usize, u64>,
}

impl Sources {
    fn add(&mut self, rule: &'static Rule) -> Result<()> {
        if let Some(&known) = self.by_name.get(rule.name) {
            let known = &self.entries[known];
            return if &*known.text == rule.check {
                Ok(())
            } else {
                Err(Fault::bug(format!(
                    "policy rule {} has two defaults: {} and {}",
                    rule.name, known.text, rule.check
                )))
            };
        }
        let check = parse::text(rule.check)
            .map_err(|why| Fault::bug(format!("default of policy rule {}: {why}", rule.name)))?;
        self.push(rule.name, rule.check, check, rule.scope, Some(rule));
        Ok(())
    }

    fn push(
        &mut self,
        name: &str,
        text: &str,
        check: Check,
        scope: &'static [Scope],
        default: Option<&'static Rule>,
    ) -> usize {
        let index = self.entries.len();
        self.entries.push(Entry { name: name.into(), scope, check, text: text.into(), default });
        self.by_name.insert(name.into(), index);
        index
    }

    fn replace(&mut self, found: overrides::Override) -> Result<()> {
        let overrides::Override { name, line, text, check } = found;
        let index = match self.by_name.get(name.as_str()) {
            Some(index) if self.lines.contains_key(index) => {
                return Err(invalid(line, format!("the rule \"{name}\" stands twice in the file")));
            }
            Some(&index) => {
                self.entries[index].check = check;
                self.entries[index].text = text.into();
                index
            }
            None => self.push(&name, &text, check, &[], None),
        };
        self.lines.insert(index, line);
        Ok(())
    }

    fn finish(mut self) -> Result<Policy> {
        self.resolve()?;
        self.refuse_unused_helpers()?;
        self.refuse_cycles()?;
        Ok(Policy { entries: self.entries, by_name: self.by_name })
    }

    fn resolve(&mut self) -> Result<()> {
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if let Err(missing) = entry.check.resolve(&self.by_name) {
                let what = format!("the rule \"{}\" refers to \"rule:{missing}\", which does not exist", entry.name);
                return Err(self.lines.get(&index).map_or_else(|| Fault::bug(&*what), |line| invalid(*line, &*what)));
            }
        }
        Ok(())
    }

    fn refuse_unused_helpers(&self) -> Result<()> {
        let mut used = vec![false; self.entries.len()];
        self.entries.iter().for_each(|entry| entry.check.references(&mut |to| used[to] = true));
        let unused = (0..used.len()).filter(|&i| self.entries[i].default.is_none() && !used[i]);
        match unused.min_by_key(|i| self.lines.get(i)) {
            None => Ok(()),
            Some(i) => {
                let name = &self.entries[i].name;
                let near = self.nearest(name).map(|near| format!(" (did you mean \"{near}\")")).unwrap_or_default();
                let what = format!("there is no rule called \"{name}\" and no rule refers to it{near}");
                Err(invalid(self.lines.get(&i).copied().unwrap_or(0), what))
            }
        }
    }

    /// The default whose name shares the longest beginning with `name`, if that is more than half of it.
    fn nearest(&self, name: &str) -> Option<&str> {
        let shared = |other: &str| name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let names = self.entries.iter().filter(|e| e.default.is_some()).map(|e| &*e.name);
        names.max_by_key(|other| shared(other)).filter(|other| shared(other) * 2 > name.len())
    }

    fn refuse_cycles(&self) -> Result<()> {
        let mut seen: Vec<Seen> = vec![Seen::Not; self.entries.len()];
        for index in 0..self.entries.len() {
            self.visit(index, &mut seen, 0).map_err(|(at, why)| {
                let what = format!("the rule \"{}\" {why}", self.entries[at].name);
                let line = self.lines.get(&at).or_else(|| self.lines.values().min());
                line.map_or_else(|| Fault::bug(&*what), |line| invalid(*line, &*what))
            })?;
        }
        Ok(())
    }

    /// Depth-first: the number of checks behind a rule, or why it has no end.
    fn visit(&self, index: usize, seen: &mut Vec<Seen>, depth: usize) -> Result<u64, (usize, &'static str)> {
        match seen[index] {
            Seen::Done(cost) => return Ok(cost),
            Seen::Open => return Err((index, "refers to itself")),
            Seen::Not if depth > DEPTH => return Err((index, "stands in a chain of more than 64 rules")),
            Seen::Not => seen[index] = Seen::Open,
        }
        let mut next = Vec::new();
        self.entries[index].check.references(&mut |to| next.push(to));
        let mut cost = self.entries[index].check.size();
        for to in next {
            cost = cost.saturating_add(self.visit(to, seen, depth + 1)?);
        }
        if cost > COST {
            return Err((index, "needs more than 100000 checks to decide"));
        }
        seen[index] = Seen::Done(cost);
        Ok(cost)
    }
}

#[derive(Clone, Copy)]
enum Seen {
    Not,
    Open,
    Done(u64),
}

fn invalid(line: u64, what: impl std::fmt::Display) -> Fault {
    Fault::invalid(format!("policy.yaml, line {line}: {what}."))
}
