//! Query strings as lists of pairs, in their order.

use base::{Fault, Result, limits};

/// The most pairs that a query string may have.
const PAIRS: usize = 256;

/// The decoded pairs of a query string. Names are matched exactly; a name may stand several times.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
    /// What is not the handler's: only links carry it on.
    kept: Vec<(String, String)>,
}

impl Query {
    pub fn parse(text: &str) -> Result<Query> {
        let pairs: Vec<_> = form_urlencoded::parse(text.as_bytes()).take(PAIRS + 1).collect();
        if pairs.len() > PAIRS {
            return Err(Fault::invalid(format!("The query string has more than {PAIRS} parameters.")));
        }
        for (name, value) in &pairs {
            limits::text("query string", name, 1024)?;
            limits::text(name, value, 8192)?;
        }
        let pairs = pairs.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned()));
        Ok(Query { pairs: pairs.collect(), kept: Vec::new() })
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.pairs.iter().filter(move |pair| pair.0 == name).map(|pair| pair.1.as_str())
    }

    pub fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|pair| pair.0 == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|pair| (pair.0.as_str(), pair.1.as_str()))
    }

    /// `true`, `1`, `yes`, `on`, `t`, `y` and their opposites in any case; Invalid otherwise.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>> {
        self.get(name).map(|text| boolean(name, text)).transpose()
    }

    /// A whole number of at least 0; Invalid otherwise.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        number.map(Some).ok_or_else(|| {
            Fault::invalid(format!("Invalid input for query parameter {name}: '{text}' is not a non-negative integer."))
        })
    }

    /// Takes out the only value of a name that the gateway reads itself; Invalid when it stands several times. Links that
    /// are made from the query still carry it.
    pub(crate) fn take(&mut self, name: &str) -> Result<Option<String>> {
        let of_name = |pair: &(String, String)| pair.0 == name;
        let taken: Vec<_> = self.pairs.extract_if(.., |pair| of_name(pair)).collect();
        if taken.len() > 1 {
            return Err(Fault::invalid(format!("The query parameter {name} may be given once.")));
        }
        let value = taken.first().map(|(_, value)| value.clone());
        self.kept.extend(taken);
        Ok(value)
    }

    /// The same query without `name`, encoded: for `first` links.
    pub fn without(&self, name: &str) -> String {
        let mut text = form_urlencoded::Serializer::new(String::new());
        text.extend_pairs(self.pairs.iter().chain(&self.kept).filter(|pair| pair.0 != name));
        text.finish()
    }

    /// The same query with `name` set to `value`, encoded: for `next` links.
    pub fn with(&self, name: &str, value: &str) -> String {
        let mut text = form_urlencoded::Serializer::new(String::new());
        text.extend_pairs(self.pairs.iter().chain(&self.kept).filter(|pair| pair.0 != name));
        text.append_pair(name, value);
        text.finish()
    }
}

/// The truth of a parameter's value; Invalid otherwise.
pub(crate) fn boolean(name: &str, text: &str) -> Result<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" | "y" => Ok(true),
        "false" | "0" | "no" | "off" | "f" | "n" => Ok(false),
        _ => Err(Fault::invalid(format!("Invalid value for {name}: '{text}' is not a boolean."))),
    }
}
