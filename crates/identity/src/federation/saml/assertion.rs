//! What a SAML 2.0 assertion says of somebody, signed: the bearer of a token, for one service provider.
//!
//! The attributes are those of a Keystone. There is no audience: the document of a service provider has no entity id to
//! name; the recipient binds the assertion to it.

use super::settings::Idp;
use super::xml::Element;
use base::{Env, Result, Timestamp};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

const C14N: &str = "http://www.w3.org/2001/10/xml-exc-c14n#";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const RSA_SHA256: &str = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256";
const SHA256: &str = "http://www.w3.org/2001/04/xmlenc#sha256";
const ENTITY: &str = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity";
const BEARER: &str = "urn:oasis:names:tc:SAML:2.0:cm:bearer";
const PASSWORD: &str = "urn:oasis:names:tc:SAML:2.0:ac:classes:Password";
const SUCCESS: &str = "urn:oasis:names:tc:SAML:2.0:status:Success";
const BY_URI: &str = "urn:oasis:names:tc:SAML:2.0:attrname-format:uri";

/// Who it is about, and for whom.
pub struct Subject {
    pub user: String,
    pub user_domain: String,
    pub roles: Vec<String>,
    pub project: String,
    pub project_domain: String,
    /// Names of groups, each with that of its domain.
    pub groups: Vec<(String, String)>,
    /// Where the service provider takes assertions.
    pub recipient: String,
    /// It lasts no longer than the token that it is made of.
    pub until: Timestamp,
}

/// A `samlp:Response` with the signed assertion.
pub fn response(idp: &Idp, env: &Env, subject: &Subject, now: Timestamp) -> Result<Element> {
    let assertion = signed(idp, assertion(idp, env, subject, now), &id(env))?;
    let status = Element::new("samlp:Status").child(Element::new("samlp:StatusCode").attribute("Value", SUCCESS));
    Ok(Element::new("samlp:Response")
        .attribute("ID", id(env))
        .attribute("Version", "2.0")
        .attribute("IssueInstant", now.iso_seconds())
        .attribute("Destination", &subject.recipient)
        .children([issuer(idp), status, assertion]))
}

/// The response in the envelope of an enhanced client (SAML profiles, 4.2), with a new relay state.
pub fn envelope(env: &Env, response: Element, relay_state_prefix: &str) -> Element {
    let relay_state = Element::new("ecp:RelayState")
        .attribute("soap:actor", "http://schemas.xmlsoap.org/soap/actor/next")
        .attribute("soap:mustUnderstand", "1")
        .text(format!("{relay_state_prefix}{}", env.uuid_hex()));
    let header = Element::new("soap:Header").child(relay_state);
    Element::new("soap:Envelope").children([header, Element::new("soap:Body").child(response)])
}

/// An XML id must not begin with a digit.
fn id(env: &Env) -> String {
    format!("_{}", env.uuid_hex())
}

fn issuer(idp: &Idp) -> Element {
    Element::new("saml:Issuer").attribute("Format", ENTITY).text(&idp.settings.idp_entity_id)
}

/// Not signed yet, and without its id.
fn assertion(idp: &Idp, env: &Env, subject: &Subject, now: Timestamp) -> Element {
    let end = now.plus_s(idp.settings.assertion_expiration_time.into()).min(subject.until).iso_micros();
    let confirmation = Element::new("saml:SubjectConfirmation").attribute("Method", BEARER).child(
        Element::new("saml:SubjectConfirmationData")
            .attribute("NotOnOrAfter", &end)
            .attribute("Recipient", &subject.recipient),
    );
    let name = Element::new("saml:NameID").text(&subject.user);
    let context = Element::new("saml:AuthnContext").children([
        Element::new("saml:AuthnContextClassRef").text(PASSWORD),
        Element::new("saml:AuthenticatingAuthority").text(&idp.settings.idp_entity_id),
    ]);
    let login = Element::new("saml:AuthnStatement")
        .attribute("AuthnInstant", now.iso_seconds())
        .attribute("SessionIndex", env.uuid_hex())
        .attribute("SessionNotOnOrAfter", &end)
        .child(context);
    Element::new("saml:Assertion").attribute("IssueInstant", now.iso_seconds()).attribute("Version", "2.0").children([
        issuer(idp),
        Element::new("saml:Subject").children([name, confirmation]),
        login,
        attributes(subject),
    ])
}

fn attributes(subject: &Subject) -> Element {
    let one = |text: &str| vec![text.to_owned()];
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let group = |(name, domain): &(String, String)| {
        format!("JSON:{{\"name\": {}, \"domain\": {{\"name\": {}}}}}", quoted(name), quoted(domain))
    };
    let said = [
        ("openstack_user", one(&subject.user)),
        ("openstack_roles", subject.roles.clone()),
        ("openstack_project", one(&subject.project)),
        ("openstack_project_domain", one(&subject.project_domain)),
        ("openstack_user_domain", one(&subject.user_domain)),
        ("openstack_groups", subject.groups.iter().map(group).collect()),
    ];
    let attribute = |(name, values): (&str, Vec<String>)| {
        let value = |text| {
            Element::new("saml:AttributeValue").within(&["xs"]).attribute("xsi:type", "xs:string").text(text)
        };
        let attribute = Element::new("saml:Attribute").attribute("Name", name).attribute("NameFormat", BY_URI);
        attribute.children(values.into_iter().map(value))
    };
    let said = said.into_iter().filter(|(_, values)| !values.is_empty());
    Element::new("saml:AttributeStatement").children(said.map(attribute))
}

/// The assertion under an id, with an enveloped signature after its issuer, where the schema wants it.
fn signed(idp: &Idp, assertion: Element, id: &str) -> Result<Element> {
    let assertion = assertion.attribute("ID", id);
    let digest = BASE64_STANDARD.encode(Sha256::digest(assertion.canonical()?));
    let by = |name, algorithm: &str| Element::new(name).attribute("Algorithm", algorithm);
    let transforms =
        Element::new("ds:Transforms").children([by("ds:Transform", ENVELOPED), by("ds:Transform", C14N)]);
    let reference = Element::new("ds:Reference").attribute("URI", format!("#{id}")).children([
        transforms,
        by("ds:DigestMethod", SHA256),
        Element::new("ds:DigestValue").text(digest),
    ]);
    let info = Element::new("ds:SignedInfo").children([
        by("ds:CanonicalizationMethod", C14N),
        by("ds:SignatureMethod", RSA_SHA256),
        reference,
    ]);
    let value = Element::new("ds:SignatureValue").text(idp.sign(&info.canonical()?)?);
    let signature = Element::new("ds:Signature").children([info, value, key_info(idp)]);
    Ok(assertion.with(1, signature))
}

/// The certificate by which a signature is held to be this cloud's.
pub fn key_info(idp: &Idp) -> Element {
    let certificate = Element::new("ds:X509Certificate").text(&idp.certificate);
    Element::new("ds:KeyInfo").child(Element::new("ds:X509Data").child(certificate))
}
