//! The usual catalogs: read from `catalog.txt` and written once into a new cloud.

use super::document::{Association, Namespace, Object, Part};
use super::namespaces::empty;
use super::{parts, property};
use base::{Fault, Result, Timestamp};
use serde_json::{Map, Value, json};
use store::{Cause, Store, Tx};

const TEXT: &str = include_str!("catalog.txt");
/// Resource types that have no definitions of their own.
const TYPES: [&str; 2] = ["OS::Cinder::Snapshot", "OS::Nova::Server"];
/// Raised when the text brings namespaces that older clouds shall get.
const VERSION: i64 = 1;
const MARK: &str = "image_metadefs";

/// Writes the catalogs into a cloud that never had them. Whatever has a name of theirs already stays as it is.
///
/// # Errors
/// What the store says.
pub async fn bootstrap(store: &Store) -> Result<()> {
    if store.read_few(|reader| Ok(reader.meta(MARK)?)).await?.is_some_and(|version| version >= VERSION) {
        return Ok(());
    }
    store.write(Cause::new("nubo", "", "image.bootstrap"), write).await.map(drop)
}

fn write(tx: &mut Tx) -> Result<()> {
    for mut namespace in read(TEXT, tx.now())? {
        if tx.get_unique::<Namespace>("name", [namespace.name.as_str()])?.is_none() {
            namespace.id = tx.uuid();
            for name in namespace.associations.keys() {
                parts::name_type(tx, name)?;
            }
            namespace.save(tx)?;
        }
    }
    for name in TYPES {
        parts::name_type(tx, name)?;
    }
    tx.set_meta(MARK, VERSION)?;
    Ok(())
}

/// Reads the text.
///
/// # Errors
/// Bug with the line that is wrong.
fn read(text: &str, now: Timestamp) -> Result<Vec<Namespace>> {
    let mut all: Vec<Namespace> = Vec::new();
    let mut object: Option<String> = None;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let wrong = || Fault::bug(format!("a line of the metadata catalogs: {line}"));
        let (first, rest) = line.split_once(' ').ok_or_else(wrong)?;
        let mut sentences = rest.splitn(3, "; ");
        let mut sentence = || sentences.next().map(str::to_owned).ok_or_else(wrong);
        if first == "namespace" {
            let mut namespace = empty(String::new());
            (namespace.name, namespace.public, namespace.protected) = (sentence()?, true, true);
            (namespace.display_name, namespace.description) = (Some(sentence()?), Some(sentence()?));
            all.push(namespace);
            object = None;
            continue;
        }
        let namespace = all.last_mut().ok_or_else(wrong)?;
        match first {
            "on" => {
                let mut words = rest.split(' ');
                let name = words.next().unwrap_or_default().to_owned();
                let prefix = words.next().filter(|prefix| *prefix != "-").map(str::to_owned);
                let it = Association { prefix, properties_target: words.next().map(str::to_owned) };
                namespace.associations.insert(name, Part::new(it, now));
            }
            "object" => {
                let (name, description) = (sentence()?, sentence()?);
                let it = Object { description: Some(description), ..Object::default() };
                namespace.objects.insert(name.clone(), Part::new(it, now));
                object = Some(name);
            }
            name => {
                let definition = definition(&sentence()?, &sentence()?, &sentence()?).ok_or_else(wrong)?;
                let definition = property::read(&definition)?;
                match object.as_ref().and_then(|name| namespace.objects.get_mut(name)) {
                    Some(object) => drop(object.it.properties.insert(name.to_owned(), definition)),
                    None => drop(namespace.properties.insert(name.to_owned(), Part::new(definition, now))),
                }
            }
        }
    }
    Ok(all)
}

/// A property of `TYPE [= one|of|these] [from N] [to N] [default X] [ops OP,OP] [writable]`.
fn definition(shape: &str, title: &str, description: &str) -> Option<Map<String, Value>> {
    let mut words = shape.split(' ');
    let mut definition = Map::new();
    let mut say = |name: &str, value: Value| drop(definition.insert(name.to_owned(), value));
    say("type", json!(words.next()?));
    say("title", json!(title));
    say("description", json!(description));
    while let Some(word) = words.next() {
        match word {
            "=" => say("enum", words.next()?.split('|').map(Value::from).collect()),
            "from" => say("minimum", json!(words.next()?.parse::<i64>().ok()?)),
            "to" => say("maximum", json!(words.next()?.parse::<i64>().ok()?)),
            "default" => say("default", json!(words.next()?)),
            "ops" => say("operators", words.next()?.split(',').map(Value::from).collect()),
            "writable" => say("readonly", json!(false)),
            _ => return None,
        }
    }
    Some(definition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_catalogs_can_be_read() {
        let all = read(TEXT, Timestamp::default()).unwrap();
        assert_eq!(all.len(), 21);
        let properties: usize = all.iter().map(|namespace| namespace.properties.len()).sum();
        let grouped: usize =
            all.iter().flat_map(|one| one.objects.values()).map(|object| object.it.properties.len()).sum();
        assert_eq!((properties, grouped), (69, 15));
        let topology = &all[0];
        assert_eq!(topology.associations["OS::Cinder::Volume"].it.properties_target.as_deref(), Some("image"));
        assert!(read("on something", Timestamp::default()).is_err());
    }
}
