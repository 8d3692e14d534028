//! Answers.

use base::{Fault, Result};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use serde::Serialize;

pub use axum::body::Body;

/// An answer of a handler. The gateway adds the request id, the version headers and `Vary`.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Body,
}

impl Reply {
    pub fn json<T: Serialize + ?Sized>(status: u16, value: &T) -> Result<Reply> {
        let bytes =
            serde_json::to_vec(value).map_err(|error| Fault::bug("an answer cannot be serialized").because(error))?;
        Ok(Reply::json_bytes(status, bytes))
    }

    /// JSON that is already bytes.
    pub fn json_bytes(status: u16, bytes: impl Into<Bytes>) -> Reply {
        Reply::empty(status).content_type("application/json").body(Body::from(bytes.into()))
    }

    pub fn empty(status: u16) -> Reply {
        Reply { status, headers: Vec::new(), body: Body::empty() }
    }

    pub fn text(status: u16, text: impl Into<String>) -> Reply {
        Reply::empty(status).content_type("text/plain; charset=utf-8").body(Body::from(text.into()))
    }

    pub fn body(mut self, body: Body) -> Reply {
        self.body = body;
        self
    }

    pub fn content_type(self, value: &'static str) -> Reply {
        self.header(header::CONTENT_TYPE, value)
    }

    /// Adds a header; a value that HTTP cannot carry is left out.
    pub fn header(mut self, name: HeaderName, value: impl AsRef<str>) -> Reply {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.push((name, value));
        }
        self
    }
}
