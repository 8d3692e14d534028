//! What service providers read of this cloud: its `md:EntityDescriptor`.

use super::assertion::key_info;
use super::settings::{Idp, Settings};
use super::xml::Element;

const PROTOCOL: &str = "urn:oasis:names:tc:SAML:2.0:protocol";
const TRANSIENT: &str = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient";
const BY_URI: &str = "urn:oasis:names:tc:SAML:2.0:bindings:URI";

pub fn descriptor(idp: &Idp) -> Element {
    let settings = &idp.settings;
    let key = Element::new("md:KeyDescriptor").attribute("use", "signing").child(key_info(idp));
    let format = Element::new("md:NameIDFormat").text(TRANSIENT);
    let service = Element::new("md:SingleSignOnService")
        .attribute("Binding", BY_URI)
        .attribute("Location", &settings.idp_sso_endpoint);
    let role = Element::new("md:IDPSSODescriptor")
        .attribute("protocolSupportEnumeration", PROTOCOL)
        .child(key)
        .children(organization(settings))
        .children(contact(settings))
        .children([format, service]);
    Element::new("md:EntityDescriptor").attribute("entityID", &settings.idp_entity_id).child(role)
}

fn organization(settings: &Settings) -> Option<Element> {
    let part = |name, text: &Option<String>| {
        Some(Element::new(name).attribute("xml:lang", &settings.idp_lang).text(text.as_deref()?))
    };
    let parts = [
        part("md:OrganizationName", &settings.idp_organization_name)?,
        part("md:OrganizationDisplayName", &settings.idp_organization_display_name)?,
        part("md:OrganizationURL", &settings.idp_organization_url)?,
    ];
    Some(Element::new("md:Organization").children(parts))
}

/// None where nobody is named.
fn contact(settings: &Settings) -> Option<Element> {
    let parts: Vec<Element> = [
        ("md:Company", &settings.idp_contact_company),
        ("md:GivenName", &settings.idp_contact_name),
        ("md:SurName", &settings.idp_contact_surname),
        ("md:EmailAddress", &settings.idp_contact_email),
        ("md:TelephoneNumber", &settings.idp_contact_telephone),
    ]
    .into_iter()
    .filter_map(|(name, text)| Some(Element::new(name).text(text.as_deref()?)))
    .collect();
    let person = Element::new("md:ContactPerson").attribute("contactType", &settings.idp_contact_type);
    (!parts.is_empty()).then(|| person.children(parts))
}
