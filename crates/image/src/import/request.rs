//! What an import asks for.

use crate::{Service, stores, versions};
use base::{Fault, Result, is_uuid};
use serde_json::{Map, Value};

pub struct Request {
    pub method: Method,
    /// Where the bytes shall lie, the first of them first. Never empty.
    pub stores: Vec<String>,
    /// All stores there are, so that those which have it already are no error.
    pub all: bool,
}

pub enum Method {
    Direct,
    Web {
        uri: String,
    },
    Glance {
        image: String,
        /// Region and interface are those of this cloud.
        here: bool,
    },
    /// From the stores that have it to others.
    Copy,
}

impl Request {
    /// Invalid for what is no import, or reaches where it may not.
    pub fn read(body: &Map<String, Value>, service: &Service, header: Option<&str>) -> Result<Request> {
        let missing = |field: &str| Fault::invalid(format!("Import request requires a '{field}' field."));
        let method = body.get("method").ok_or_else(|| missing("method"))?;
        let name = method.get("name").ok_or_else(|| missing("name"))?.as_str().unwrap_or("");
        if !versions::import_methods(service).contains(&name) {
            return Err(Fault::invalid(format!("Unknown import method name '{name}'.")));
        }
        let (stores, all) = stores::asked(service, body, header)?;
        let text = |field: &str| method.get(field).and_then(Value::as_str);
        let method = match name {
            "web-download" => {
                let uri = text("uri").unwrap_or("None");
                service.options.web_rules.check("URI for web-download", uri)?;
                Method::Web { uri: uri.to_owned() }
            }
            "glance-download" => {
                let needed = |field: &str| {
                    text(field).ok_or_else(|| {
                        Fault::invalid(format!("'{field}' needs to be set for glance-download import method"))
                    })
                };
                let (region, image) = (needed("glance_region")?, needed("glance_image_id")?);
                if !is_uuid(image) {
                    return Err(Fault::invalid(format!("Remote image id does not look like a UUID: {image}")));
                }
                let interface = text("glance_service_interface").unwrap_or("public");
                let here = region == service.options.region && ["public", "internal", "admin"].contains(&interface);
                Method::Glance { image: image.to_owned(), here }
            }
            "copy-image" => Method::Copy,
            _ => Method::Direct,
        };
        Ok(Request { method, stores, all })
    }
}
