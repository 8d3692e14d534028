//! XML that is made here and never read: elements with their namespaces, and two ways to write them down.
//!
//! Both declare a namespace at the element that uses it first, as exclusive canonicalization does, so what is signed is
//! what a reader makes of the document again.

use base::{Fault, Result};

/// Every prefix that is used here. `xml` is never declared.
const NAMESPACES: [(&str, &str); 9] = [
    ("ds", "http://www.w3.org/2000/09/xmldsig#"),
    ("ecp", "urn:oasis:names:tc:SAML:2.0:profiles:SSO:ecp"),
    ("md", "urn:oasis:names:tc:SAML:2.0:metadata"),
    ("saml", "urn:oasis:names:tc:SAML:2.0:assertion"),
    ("samlp", "urn:oasis:names:tc:SAML:2.0:protocol"),
    ("soap", "http://schemas.xmlsoap.org/soap/envelope/"),
    ("xml", "http://www.w3.org/XML/1998/namespace"),
    ("xs", "http://www.w3.org/2001/XMLSchema"),
    ("xsi", "http://www.w3.org/2001/XMLSchema-instance"),
];

/// An element. Names are written with their prefix, as in `saml:Issuer`.
#[derive(Clone, Debug)]
pub struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    /// Prefixes that stand only in the text, which no canonical form declares.
    within: &'static [&'static str],
    content: Vec<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Element(Element),
    Text(String),
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// Exclusive XML canonicalization without comments (W3C, 2002), in UTF-8.
    Canonical,
    /// In ASCII: clients take `text/xml` for Latin-1.
    Document,
}

impl Element {
    pub fn new(name: &'static str) -> Element {
        Element { name, attributes: Vec::new(), within: &[], content: Vec::new() }
    }

    pub fn attribute(mut self, name: &'static str, value: impl Into<String>) -> Element {
        self.attributes.push((name, value.into()));
        self
    }

    /// Declares prefixes that its text uses.
    pub fn within(mut self, prefixes: &'static [&'static str]) -> Element {
        self.within = prefixes;
        self
    }

    pub fn child(mut self, child: Element) -> Element {
        self.content.push(Node::Element(child));
        self
    }

    pub fn children(mut self, children: impl IntoIterator<Item = Element>) -> Element {
        self.content.extend(children.into_iter().map(Node::Element));
        self
    }

    pub fn text(mut self, text: impl Into<String>) -> Element {
        self.content.push(Node::Text(text.into()));
        self
    }

    /// The same with one more child, as the one at `place`.
    pub fn with(mut self, place: usize, child: Element) -> Element {
        self.content.insert(place.min(self.content.len()), Node::Element(child));
        self
    }

    /// What is digested and signed. Invalid where a text has characters that no XML can have.
    pub fn canonical(&self) -> Result<String> {
        self.written(Form::Canonical)
    }

    /// What is sent, as a document of its own.
    pub fn document(&self) -> Result<String> {
        self.written(Form::Document)
    }

    fn written(&self, form: Form) -> Result<String> {
        let mut out = String::new();
        self.write(form, &mut Vec::new(), &mut out)?;
        Ok(out)
    }

    fn write(&self, form: Form, declared: &mut Vec<&'static str>, out: &mut String) -> Result<()> {
        let outside = declared.len();
        let mut used: Vec<&str> = self.attributes.iter().filter_map(|(name, _)| prefix(name)).collect();
        used.extend(prefix(self.name));
        if form == Form::Document {
            used.extend(self.within);
        }
        used.sort_unstable();
        used.dedup();
        out.push('<');
        out.push_str(self.name);
        for prefix in used.into_iter().filter(|prefix| *prefix != "xml") {
            if declared.contains(&prefix) {
                continue;
            }
            out.push_str(&format!(" xmlns:{prefix}=\"{}\"", namespace(prefix)?));
            declared.push(prefix);
        }
        let mut attributes: Vec<_> = self.attributes.iter().collect();
        attributes.sort_by_key(|(name, _)| order(name));
        for (name, value) in attributes {
            out.push_str(&format!(" {name}=\"{}\"", escaped(value, form, true)?));
        }
        out.push('>');
        for node in &self.content {
            match node {
                Node::Element(element) => element.write(form, declared, out)?,
                Node::Text(text) => out.push_str(&escaped(text, form, false)?),
            }
        }
        out.push_str(&format!("</{}>", self.name));
        declared.truncate(outside);
        Ok(())
    }
}

fn prefix(name: &'static str) -> Option<&'static str> {
    name.split_once(':').map(|(prefix, _)| prefix)
}

fn namespace(prefix: &str) -> Result<&'static str> {
    let known = NAMESPACES.iter().find(|(name, _)| *name == prefix);
    known.map(|(_, uri)| *uri).ok_or_else(|| Fault::bug(format!("the prefix {prefix} stands for no namespace")))
}

/// Attributes stand in the order of namespace and name, those without a namespace first.
fn order(name: &'static str) -> (&'static str, &'static str) {
    match name.split_once(':') {
        Some((prefix, local)) => (namespace(prefix).unwrap_or_default(), local),
        None => ("", name),
    }
}

/// What is not markup, and comes back as it was: a reader turns line ends and the white space of attributes into others.
fn escaped(text: &str, form: Form, attribute: bool) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' if !attribute => out.push_str("&gt;"),
            '"' if attribute => out.push_str("&quot;"),
            '\r' => out.push_str("&#xD;"),
            '\t' | '\n' if attribute => out.push_str(&format!("&#x{:X};", u32::from(c))),
            '\t' | '\n' => out.push(c),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                return Err(Fault::invalid(format!("The character U+{:04X} of a name cannot stand in XML.", u32::from(c))));
            }
            c if form == Form::Document && !c.is_ascii() => out.push_str(&format!("&#x{:X};", u32::from(c))),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(element: &Element, canonical: Expect, document: Expect) {
        canonical.assert_eq(&element.canonical().unwrap());
        document.assert_eq(&element.document().unwrap());
    }

    #[test]
    fn namespaces_stand_where_they_are_used_first_and_attributes_in_order() {
        let value = Element::new("saml:AttributeValue").within(&["xs"]).attribute("xsi:type", "xs:string").text("é");
        let value = value.attribute("b", "2").attribute("a", "1").attribute("xml:lang", "en");
        let element = Element::new("samlp:Response").children([value.clone(), Element::new("samlp:Status")]);
        check(
            &element.child(value),
            expect![[r#"<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"><saml:AttributeValue xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" a="1" b="2" xsi:type="xs:string" xml:lang="en">é</saml:AttributeValue><samlp:Status></samlp:Status><saml:AttributeValue xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" a="1" b="2" xsi:type="xs:string" xml:lang="en">é</saml:AttributeValue></samlp:Response>"#]],
            expect![[r#"<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"><saml:AttributeValue xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" a="1" b="2" xsi:type="xs:string" xml:lang="en">&#xE9;</saml:AttributeValue><samlp:Status></samlp:Status><saml:AttributeValue xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" a="1" b="2" xsi:type="xs:string" xml:lang="en">&#xE9;</saml:AttributeValue></samlp:Response>"#]],
        );
    }

    #[test]
    fn what_looks_like_markup_is_text() {
        let hostile = "</a><!--\"'&amp;]]>\r\n\t\u{1F600}";
        check(
            &Element::new("a").attribute("b", hostile).text(hostile),
            expect![[r#"
                <a b="&lt;/a>&lt;!--&quot;'&amp;amp;]]>&#xD;&#xA;&#x9;😀">&lt;/a&gt;&lt;!--"'&amp;amp;]]&gt;&#xD;
                	😀</a>"#]],
            expect![[r#"
                <a b="&lt;/a>&lt;!--&quot;'&amp;amp;]]>&#xD;&#xA;&#x9;&#x1F600;">&lt;/a&gt;&lt;!--"'&amp;amp;]]&gt;&#xD;
                	&#x1F600;</a>"#]],
        );
        for text in ["\0", "\u{b}", "\u{ffff}"] {
            let fault = Element::new("a").text(text).canonical().unwrap_err();
            assert_eq!(fault.kind, base::FaultKind::Invalid, "{text:?}");
        }
    }
}
