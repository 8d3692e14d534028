//! Why a rule allows something or not: each check on the way, and whether it holds.

use crate::check::{Check, Left, Pattern, Reference, World};
use crate::{Credentials, Decision, Entry, Policy, Scope, Target};

/// The most checks that are told.
const STEPS: usize = 500;

#[derive(Debug, PartialEq, Eq)]
pub struct Explanation<'a> {
    pub decision: Decision,
    /// The rule in force.
    pub text: &'a str,
    /// What tokens it takes; empty: every token.
    pub scope: &'static [Scope],
    /// The checks from the outermost on, each with those that it consists of behind it.
    pub steps: Vec<Step>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub depth: usize,
    /// In the language of the rules; `all of`, `any of` and `not` for what consists of others.
    pub check: String,
    pub holds: bool,
}

impl Policy {
    /// None where there is no such rule.
    pub fn explain(&self, rule: &str, creds: &Credentials, target: &Target) -> Option<Explanation<'_>> {
        let entry = &self.entries[*self.by_name.get(rule)?];
        let world = World { entries: &self.entries, creds, target };
        let mut steps = Vec::new();
        tell(&entry.check, &world, 0, &mut steps);
        let decision = self.check(rule, creds, target);
        Some(Explanation { decision, text: &entry.text, scope: entry.scope, steps })
    }
}

fn tell(check: &Check, world: &World, depth: usize, steps: &mut Vec<Step>) {
    if steps.len() >= STEPS {
        return;
    }
    steps.push(Step { depth, check: words(check, world.entries), holds: check.holds(world) });
    match check {
        Check::And(parts) | Check::Or(parts) => parts.iter().for_each(|part| tell(part, world, depth + 1, steps)),
        Check::Not(part) => tell(part, world, depth + 1, steps),
        Check::Rule(Reference::Place(place)) => tell(&world.entries[*place].check, world, depth + 1, steps),
        _ => {}
    }
}

fn words(check: &Check, entries: &[Entry]) -> String {
    match check {
        Check::Always => "@".into(),
        Check::Never => "!".into(),
        Check::And(_) => "all of".into(),
        Check::Or(_) => "any of".into(),
        Check::Not(_) => "not".into(),
        Check::Rule(Reference::Place(place)) => format!("rule:{}", entries[*place].name),
        Check::Rule(Reference::Name(name)) => format!("rule:{name}"),
        Check::Role(role) => format!("role:{}", pattern(role)),
        Check::Compare(Left::Literal(text), right) => format!("'{text}':{}", pattern(right)),
        Check::Compare(Left::Field(field), right) => format!("{}:{}", field.name(), pattern(right)),
    }
}

fn pattern(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Text(text) => text.to_string(),
        Pattern::Name(name) => format!("%({name})s"),
        Pattern::Mixed(parts) => parts.iter().map(self::pattern).collect(),
    }
}
