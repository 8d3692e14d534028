//! nftables: a table as a value, the transaction that leads from one to another, and the reader of what stands.
//!
//! A table is loaded whole or changed by exactly what differs; either way one `nft -f -`, which the kernel takes as a
//! whole or not at all. After a failure the old rules hold. [`Table::normal`] is how two tables are proven equal: what
//! nft lists of the real one is compared with what it lists of the wanted one, loaded into an empty namespace.

use crate::{Error, Netns, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    #[default]
    Ip,
    Ip6,
    Inet,
    Bridge,
}

impl Family {
    pub fn word(self) -> &'static str {
        match self {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Inet => "inet",
            Family::Bridge => "bridge",
        }
    }
}

/// A table as it shall be. Names must be identifiers that are no words of nft's language (`ip6`, `rt` are).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub family: Family,
    pub name: String,
    pub counters: BTreeSet<String>,
    pub sets: BTreeMap<String, Set>,
    pub maps: BTreeMap<String, Map>,
    pub chains: BTreeMap<String, Chain>,
}

/// `kind` is nft's type, such as `ifname . ether_addr`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    pub kind: String,
    /// Elements are ranges. Such a set is always written anew as a whole, since overlaps depend on order.
    pub interval: bool,
    /// Elements come from the packet path: never compared, never written.
    pub dynamic: bool,
    pub elements: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    pub kind: String,
    pub elements: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chain {
    /// `type filter hook forward priority 0; policy drop;` for a base chain.
    pub hook: Option<String>,
    pub rules: Vec<String>,
}

impl Table {
    pub fn new(family: Family, name: impl Into<String>) -> Table {
        Table { family, name: name.into(), ..Default::default() }
    }

    pub fn set(&mut self, name: impl Into<String>, kind: &str) -> &mut Set {
        self.sets.entry(name.into()).or_insert_with(|| Set { kind: kind.to_owned(), ..Default::default() })
    }

    pub fn map(&mut self, name: impl Into<String>, kind: &str) -> &mut Map {
        self.maps.entry(name.into()).or_insert_with(|| Map { kind: kind.to_owned(), ..Default::default() })
    }

    pub fn chain(&mut self, name: impl Into<String>) -> &mut Chain {
        self.chains.entry(name.into()).or_default()
    }

    pub fn base(&mut self, name: impl Into<String>, hook: &str) -> &mut Chain {
        let chain = self.chain(name);
        chain.hook = Some(hook.to_owned());
        chain
    }

    /// Family and name, as nft writes them.
    pub fn path(&self) -> String {
        format!("{} {}", self.family.word(), self.name)
    }
}

impl Chain {
    pub fn rule(&mut self, text: impl Into<String>) -> &mut Chain {
        self.rules.push(text.into());
        self
    }
}

/// The transaction that makes `new` out of `old` (none: whatever is there is replaced). Empty when nothing differs.
pub fn script(old: Option<&Table>, new: &Table) -> String {
    let path = new.path();
    let empty = Table::new(new.family, new.name.clone());
    let mut out = String::new();
    let old = match old {
        Some(old) if compatible(old, new) => old,
        _ => {
            let _ = writeln!(out, "add table {path}\ndelete table {path}\nadd table {path}");
            &empty
        }
    };
    declare(&mut out, &path, old, new);
    drop_elements(&mut out, &path, old, new);
    rules(&mut out, &path, old, new);
    add_elements(&mut out, &path, old, new);
    undeclare(&mut out, &path, old, new);
    out
}

/// Base chains' hooks and sets' types cannot be changed in place.
fn compatible(old: &Table, new: &Table) -> bool {
    (old.family, &old.name) == (new.family, &new.name)
        && old.chains.iter().all(|(name, chain)| new.chains.get(name).is_none_or(|it| it.hook == chain.hook))
        && old.sets.iter().all(|(name, set)| {
            new.sets
                .get(name)
                .is_none_or(|it| (&it.kind, it.interval, it.dynamic) == (&set.kind, set.interval, set.dynamic))
        })
        && old.maps.iter().all(|(name, map)| new.maps.get(name).is_none_or(|it| it.kind == map.kind))
}

fn declare(out: &mut String, path: &str, old: &Table, new: &Table) {
    for name in new.counters.difference(&old.counters) {
        let _ = writeln!(out, "add counter {path} {name}");
    }
    for (name, set) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
        let flags = match (set.interval, set.dynamic) {
            (true, _) => " flags interval;",
            (_, true) => " flags dynamic;",
            _ => "",
        };
        let _ = writeln!(out, "add set {path} {name} {{ type {};{flags} }}", set.kind);
    }
    for (name, map) in new.maps.iter().filter(|(name, _)| !old.maps.contains_key(*name)) {
        let _ = writeln!(out, "add map {path} {name} {{ type {}; }}", map.kind);
    }
    for (name, chain) in new.chains.iter().filter(|(name, _)| !old.chains.contains_key(*name)) {
        match &chain.hook {
            Some(hook) => writeln!(out, "add chain {path} {name} {{ {hook} }}"),
            None => writeln!(out, "add chain {path} {name}"),
        }
        .ok();
    }
}

fn drop_elements(out: &mut String, path: &str, old: &Table, new: &Table) {
    for (name, set) in old.sets.iter().filter(|(_, set)| !set.dynamic) {
        let wanted = new.sets.get(name);
        if set.interval {
            if wanted.is_none_or(|w| w.elements != set.elements) && !set.elements.is_empty() {
                let _ = writeln!(out, "flush set {path} {name}");
            }
            continue;
        }
        let gone = set.elements.iter().filter(|e| wanted.is_none_or(|w| !w.elements.contains(*e)));
        elements(out, "delete", path, name, gone.cloned());
    }
    for (name, map) in &old.maps {
        let wanted = new.maps.get(name);
        let gone = map.elements.iter().filter(|(k, v)| wanted.is_none_or(|w| w.elements.get(*k) != Some(*v)));
        elements(out, "delete", path, name, gone.map(|(k, v)| format!("{k} : {v}")));
    }
}

fn rules(out: &mut String, path: &str, old: &Table, new: &Table) {
    for name in old.chains.keys().filter(|name| !new.chains.contains_key(*name)) {
        let _ = writeln!(out, "flush chain {path} {name}");
    }
    for (name, chain) in &new.chains {
        let before = old.chains.get(name).map(|c| &c.rules[..]).unwrap_or(&[]);
        if before == chain.rules {
            continue;
        }
        if !before.is_empty() {
            let _ = writeln!(out, "flush chain {path} {name}");
        }
        for rule in &chain.rules {
            let _ = writeln!(out, "add rule {path} {name} {rule}");
        }
    }
}

fn add_elements(out: &mut String, path: &str, old: &Table, new: &Table) {
    for (name, set) in new.sets.iter().filter(|(_, set)| !set.dynamic) {
        let before = old.sets.get(name);
        let again = set.interval && before.is_some_and(|b| b.elements != set.elements);
        let fresh = set.elements.iter().filter(|e| again || before.is_none_or(|b| !b.elements.contains(*e)));
        elements(out, "add", path, name, fresh.cloned());
    }
    for (name, map) in &new.maps {
        let before = old.maps.get(name);
        let fresh = map.elements.iter().filter(|(k, v)| before.is_none_or(|b| b.elements.get(*k) != Some(*v)));
        elements(out, "add", path, name, fresh.map(|(k, v)| format!("{k} : {v}")));
    }
}

fn undeclare(out: &mut String, path: &str, old: &Table, new: &Table) {
    for name in old.chains.keys().filter(|name| !new.chains.contains_key(*name)) {
        let _ = writeln!(out, "delete chain {path} {name}");
    }
    for name in old.maps.keys().filter(|name| !new.maps.contains_key(*name)) {
        let _ = writeln!(out, "delete map {path} {name}");
    }
    for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
        let _ = writeln!(out, "delete set {path} {name}");
    }
    for name in old.counters.difference(&new.counters) {
        let _ = writeln!(out, "delete counter {path} {name}");
    }
}

fn elements(out: &mut String, verb: &str, path: &str, name: &str, list: impl Iterator<Item = String>) {
    let list: Vec<String> = list.collect();
    for part in list.chunks(256) {
        let _ = writeln!(out, "{verb} element {path} {name} {{ {} }}", part.join(", "));
    }
}

/// Carries out a script inside a namespace; nothing of it holds when this fails.
pub fn apply(ns: &Netns, script: &str) -> Result<()> {
    if script.is_empty() {
        return Ok(());
    }
    run(ns, &["-f", "-"], script).map(|_| ())
}

/// Removes a table; one that is not there is no fault.
pub fn delete(ns: &Netns, family: Family, name: &str) -> Result<()> {
    let path = format!("{} {name}", family.word());
    apply(ns, &format!("add table {path}\ndelete table {path}\n"))
}

/// Everything that nft lists in a namespace, without counters' values.
pub fn listing(ns: &Netns) -> Result<String> {
    run(ns, &["-s", "list", "ruleset"], "")
}

/// The tables of a namespace, as family and name.
pub fn tables(ns: &Netns) -> Result<Vec<(String, String)>> {
    Ok(run(ns, &["list", "tables"], "")?
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .collect())
}

fn run(ns: &Netns, arguments: &[&str], input: &str) -> Result<String> {
    let what = || format!("nft {}", arguments.join(" "));
    let mut child = ns
        .command("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Error::os(what(), e))?;
    if let Some(mut stdin) = child.stdin.take() {
        // nft reads all of its input before it writes anything; a broken pipe shows in its exit code.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| Error::os(what(), e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::tool(what(), said.trim().chars().take(2000).collect::<String>()))
}

/// A listing as comparable facts: `bridge nubo chain in_x: ` and a rule with its place, or a set and an element.
pub fn facts(listing: &str, tables: impl Fn(&str, &str) -> bool) -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    let (mut table, mut part) = (None::<String>, None::<(String, usize)>);
    let mut list = None::<String>;
    for raw in listing.lines() {
        let line = raw.trim();
        if let Some(text) = &mut list {
            text.push(' ');
            text.push_str(line);
            if line.ends_with('}') {
                let owner = part.as_ref().map(|p| p.0.clone()).unwrap_or_default();
                list_facts(&mut facts, &owner, &list.take().unwrap_or_default());
            }
        } else if let Some(rest) = line.strip_prefix("table ") {
            let mut words = rest.trim_end_matches('{').split_whitespace();
            let (family, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            table = tables(family, name).then(|| format!("{family} {name}"));
        } else if line == "}" {
            if part.take().is_none() {
                table = None;
            }
        } else if let Some(table) = &table {
            match &mut part {
                None if line.ends_with('{') => {
                    let owner = format!("{table} {}", line.trim_end_matches('{').trim());
                    facts.insert(owner.clone());
                    part = Some((owner, 0));
                }
                Some((owner, _)) if line.starts_with("elements = {") => {
                    if line.ends_with('}') {
                        list_facts(&mut facts, owner, line);
                    } else {
                        list = Some(line.to_owned());
                    }
                }
                Some((owner, number)) if !line.is_empty() => {
                    facts.insert(format!("{owner}: {number}: {line}"));
                    *number += 1;
                }
                _ => {}
            }
        }
    }
    facts
}

fn list_facts(facts: &mut BTreeSet<String>, owner: &str, text: &str) {
    let inner = text.trim_start_matches("elements = {").trim_end_matches('}');
    for element in inner.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        facts.insert(format!("{owner}: element {}", element.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
}

/// What differs between the tables that stand in `ns` and the wanted ones: `missing …` and `unexpected …`.
pub fn compare(ns: &Netns, wanted: &[&Table], ours: impl Fn(&str, &str) -> bool) -> Result<Vec<String>> {
    let scratch = Netns::scratch()?;
    let text: String = wanted.iter().map(|table| script(None, table)).collect();
    apply(&scratch, &text)?;
    let dynamic: Vec<String> = wanted
        .iter()
        .flat_map(|t| t.sets.iter().filter(|(_, s)| s.dynamic).map(|(n, _)| format!("{} set {n}: element", t.path())))
        .collect();
    let read = |ns: &Netns| -> Result<BTreeSet<String>> {
        let all = facts(&listing(ns)?, &ours);
        Ok(all.into_iter().filter(|fact| !dynamic.iter().any(|d| fact.starts_with(d.as_str()))).collect())
    };
    let (is, shall) = (read(ns)?, read(&scratch)?);
    let missing = shall.difference(&is).map(|fact| format!("missing {fact}"));
    Ok(missing.chain(is.difference(&shall).map(|fact| format!("unexpected {fact}"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn table() -> Table {
        let mut table = Table::new(Family::Bridge, "t");
        table.set("macs", "ether_addr").elements.insert("02:00:00:00:00:01".into());
        table.chain("port_a").rule("accept");
        table.map("ports", "ifname : verdict").elements.insert("\"a\"".into(), "jump port_a".into());
        table.base("fwd", "type filter hook forward priority 0; policy drop;").rule("iifname vmap @ports");
        table
    }

    fn check(old: Option<&Table>, new: &Table, expect: Expect) {
        expect.assert_eq(&script(old, new));
    }

    #[test]
    fn a_whole_table_replaces_what_was_there_in_one_transaction() {
        check(
            None,
            &table(),
            expect![[r#"
                add table bridge t
                delete table bridge t
                add table bridge t
                add set bridge t macs { type ether_addr; }
                add map bridge t ports { type ifname : verdict; }
                add chain bridge t fwd { type filter hook forward priority 0; policy drop; }
                add chain bridge t port_a
                add rule bridge t fwd iifname vmap @ports
                add rule bridge t port_a accept
                add element bridge t macs { 02:00:00:00:00:01 }
                add element bridge t ports { "a" : jump port_a }
            "#]],
        );
    }

    #[test]
    fn a_change_touches_only_what_differs() {
        let (old, mut new) = (table(), table());
        check(Some(&old), &new, expect![""]);
        new.set("macs", "").elements.insert("02:00:00:00:00:02".into());
        check(
            Some(&old),
            &new,
            expect![[r#"
            add element bridge t macs { 02:00:00:00:00:02 }
        "#]],
        );
    }

    #[test]
    fn a_chain_goes_after_the_element_that_named_it() {
        let (old, mut new) = (table(), table());
        new.chains.remove("port_a");
        new.maps.get_mut("ports").unwrap().elements.clear();
        check(
            Some(&old),
            &new,
            expect![[r#"
            delete element bridge t ports { "a" : jump port_a }
            flush chain bridge t port_a
            delete chain bridge t port_a
        "#]],
        );
    }

    #[test]
    fn a_listing_becomes_facts_whatever_the_order_of_elements() {
        let one = "table bridge t {\n\tset macs {\n\t\ttype ether_addr\n\t\telements = { 02:00:00:00:00:01,\n\t\t\t     02:00:00:00:00:02 }\n\t}\n\n\tchain fwd {\n\t\ttype filter hook forward priority filter; policy drop;\n\t\tiifname vmap @ports\n\t}\n}\ntable inet foreign {\n\tchain x {\n\t}\n}\n";
        let two = one.replace("00:01,\n\t\t\t     02:00:00:00:00:02", "00:02, 02:00:00:00:00:01");
        let ours = |_: &str, name: &str| name == "t";
        assert_eq!(facts(one, ours), facts(&two, ours));
        expect![[r#"
            {
                "bridge t chain fwd",
                "bridge t chain fwd: 0: type filter hook forward priority filter; policy drop;",
                "bridge t chain fwd: 1: iifname vmap @ports",
                "bridge t set macs",
                "bridge t set macs: 0: type ether_addr",
                "bridge t set macs: element 02:00:00:00:00:01",
                "bridge t set macs: element 02:00:00:00:00:02",
            }
        "#]]
        .assert_debug_eq(&facts(one, ours));
    }
}
