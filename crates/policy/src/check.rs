//! The syntax tree of a rule, and its evaluation.

use crate::credentials::Field;
use crate::{Credentials, Entry, Target, Value};
use std::borrow::Cow;
use std::collections::HashMap;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Check {
    Always,
    Never,
    And(Vec<Check>),
    Or(Vec<Check>),
    Not(Box<Check>),
    Rule(Reference),
    Role(Pattern),
    Compare(Left, Pattern),
}

/// A rule by name while parsing, by place once resolved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reference {
    Name(Box<str>),
    Place(usize),
}

/// The left side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Left {
    Literal(Box<str>),
    Field(Field),
}

/// The right side: text with `%(name)s` in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pattern {
    Text(Box<str>),
    Name(Box<str>),
    Mixed(Vec<Pattern>),
}

pub(crate) struct World<'a> {
    pub entries: &'a [Entry],
    pub creds: &'a Credentials,
    pub target: &'a Target<'a>,
}

impl Check {
    pub fn holds(&self, world: &World) -> bool {
        match self {
            Check::Always => true,
            Check::Never => false,
            Check::And(checks) => checks.iter().all(|check| check.holds(world)),
            Check::Or(checks) => checks.iter().any(|check| check.holds(world)),
            Check::Not(check) => !check.holds(world),
            Check::Rule(Reference::Place(place)) => world.entries[*place].check.holds(world),
            Check::Rule(Reference::Name(_)) => false,
            Check::Role(pattern) => pattern.value(world.target).is_some_and(|wanted| {
                let Some(wanted) = wanted.shown() else { return false };
                world.creds.roles.iter().any(|role| same_role(role, &wanted))
            }),
            Check::Compare(left, pattern) => {
                pattern.value(world.target).is_some_and(|right| left.equals(world.creds, &right, pattern))
            }
        }
    }

    /// Turns names into places, or tells the name that is missing.
    pub fn resolve(&mut self, places: &HashMap<Box<str>, usize>) -> Result<(), Box<str>> {
        match self {
            Check::And(checks) | Check::Or(checks) => checks.iter_mut().try_for_each(|check| check.resolve(places)),
            Check::Not(check) => check.resolve(places),
            Check::Rule(reference) => {
                if let Reference::Name(name) = reference {
                    *reference = Reference::Place(*places.get(name).ok_or_else(|| name.clone())?);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub fn references(&self, tell: &mut impl FnMut(usize)) {
        match self {
            Check::And(checks) | Check::Or(checks) => checks.iter().for_each(|check| check.references(tell)),
            Check::Not(check) => check.references(tell),
            Check::Rule(Reference::Place(place)) => tell(*place),
            _ => {}
        }
    }

    /// The number of its own nodes.
    pub fn size(&self) -> u64 {
        1 + match self {
            Check::And(checks) | Check::Or(checks) => checks.iter().map(Check::size).sum(),
            Check::Not(check) => check.size(),
            _ => 0,
        }
    }
}

/// Role names compare without case; most are ASCII.
fn same_role(mine: &str, wanted: &str) -> bool {
    mine.eq_ignore_ascii_case(wanted)
        || (!mine.is_ascii() || !wanted.is_ascii()) && mine.to_lowercase() == wanted.to_lowercase()
}

impl Left {
    /// A missing fact never equals a missing value: without this, an unscoped token would own what belongs to no
    /// project. oslo.policy compares both as the text `None`. A literal `None` on the right still finds it.
    fn equals(&self, creds: &Credentials, right: &Value, pattern: &Pattern) -> bool {
        let Some(shown) = right.shown() else { return false };
        match self {
            Left::Literal(text) => **text == *shown,
            Left::Field(field) => field.any(creds, &|fact| {
                let both_missing = fact.is_null() && !matches!(pattern, Pattern::Text(_));
                !both_missing && fact.shown().is_some_and(|fact| fact == shown)
            }),
        }
    }
}

impl Pattern {
    /// The text with the target's values in it; none if the target lacks one.
    fn value<'a>(&'a self, target: &'a Target) -> Option<Value<'a>> {
        match self {
            Pattern::Text(text) => Some(Value::Text(Cow::Borrowed(text))),
            Pattern::Name(name) => target.get(name),
            Pattern::Mixed(parts) => {
                let mut text = String::new();
                for part in parts {
                    text.push_str(&part.value(target)?.shown()?);
                }
                Some(Value::Text(Cow::Owned(text)))
            }
        }
    }
}
