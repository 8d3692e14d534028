//! How each service says that something went wrong: the status of a fault's kind and its own JSON around it.

use base::{Fault, FaultKind};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    Identity,
    Image,
    Network,
    Compute,
    Volume,
    Placement,
    /// Our own service, and whatever lies outside any service.
    Nubo,
}

impl Envelope {
    /// The HTTP status of a fault in this service.
    pub fn status(self, fault: &Fault) -> u16 {
        if let Some(status) = fault.status {
            return status;
        }
        match (fault.kind, self) {
            (FaultKind::Quota, Envelope::Network) => 409,
            (FaultKind::Quota, Envelope::Image | Envelope::Volume) => 413,
            (kind, _) => usual_status(kind),
        }
    }

    /// The body of a fault.
    pub fn body(self, fault: &Fault, request_id: &str) -> Value {
        let status = self.status(fault);
        let message = &fault.message;
        match self {
            // The token middleware answers for every service, so a missing token looks the same everywhere.
            _ if status == 401 => json!({"error": {"code": 401, "title": "Unauthorized", "message": message}}),
            Envelope::Identity | Envelope::Nubo => {
                json!({"error": {"code": status, "title": title(status), "message": message}})
            }
            Envelope::Image => {
                json!({"code": format!("{status} {}", title(status)), "title": title(status), "message": message})
            }
            Envelope::Network => {
                // With this kind the name holds the methods that are allowed, for the header.
                let own = fault.name.as_deref().filter(|_| fault.kind != FaultKind::MethodNotAllowed);
                let name = own.unwrap_or_else(|| neutron_name(fault.kind));
                json!({"NeutronError": {"type": name, "message": message, "detail": ""}})
            }
            Envelope::Compute | Envelope::Volume => json!({nova_name(status): {"code": status, "message": message}}),
            Envelope::Placement => {
                let code = fault.name.as_deref().unwrap_or("placement.undefined_code");
                json!({"errors": [{"status": status, "title": title(status), "detail": message, "code": code, "request_id": request_id}]})
            }
        }
    }
}

fn usual_status(kind: FaultKind) -> u16 {
    match kind {
        FaultKind::NotFound => 404,
        FaultKind::Conflict => 409,
        FaultKind::Invalid => 400,
        FaultKind::Quota | FaultKind::Forbidden => 403,
        FaultKind::Unauthenticated => 401,
        FaultKind::Capacity => 409,
        FaultKind::Unavailable => 503,
        FaultKind::TooLarge => 413,
        FaultKind::NotAcceptable => 406,
        FaultKind::MethodNotAllowed => 405,
        FaultKind::Gone => 410,
        FaultKind::Precondition => 412,
        FaultKind::UnsupportedMedia => 415,
        FaultKind::Range => 416,
        FaultKind::RateLimited => 429,
        FaultKind::NotImplemented => 501,
        FaultKind::Bug => 500,
    }
}

pub(crate) fn title(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error")
}

fn nova_name(status: u16) -> &'static str {
    match status {
        400 => "badRequest",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "itemNotFound",
        405 => "badMethod",
        406 => "notAcceptable",
        409 => "conflictingRequest",
        413 => "overLimit",
        415 => "badMediaType",
        429 => "overLimit",
        501 => "notImplemented",
        503 => "serviceUnavailable",
        _ => "computeFault",
    }
}

fn neutron_name(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::NotFound => "HTTPNotFound",
        FaultKind::Conflict => "Conflict",
        FaultKind::Invalid => "HTTPBadRequest",
        FaultKind::Quota => "OverQuota",
        FaultKind::Forbidden => "PolicyNotAuthorized",
        FaultKind::NotImplemented => "NotImplementedError",
        FaultKind::Unavailable => "ServiceUnavailable",
        FaultKind::MethodNotAllowed => "HTTPMethodNotAllowed",
        FaultKind::TooLarge => "HTTPRequestEntityTooLarge",
        _ => "HTTPInternalServerError",
    }
}
