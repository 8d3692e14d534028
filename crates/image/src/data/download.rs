//! Giving the bytes out.

use crate::Service;
use crate::document::Status;
use crate::images::find;
use crate::images::ops::is_admin;
use base::{Fault, FaultKind, Result};
use rest::{Body, Call, HeaderName, Reply, header};
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use tokio_util::io::ReaderStream;

/// Bytes that are read at a time.
const CHUNK: usize = 256 * 1024;

pub async fn download(service: Arc<Service>, call: Call) -> Result<Reply> {
    let asked = call.header("range").map(str::to_owned);
    let verify = call.query.boolean("verify")?.unwrap_or(false);
    let image = service.store.read(move |reader| {
        let image = find(reader, &call, call.param("image_id"), call.rule)?;
        if image.status == Status::Deactivated && !is_admin(&call.caller) {
            let message = "The requested image has been deactivated. Image data download is forbidden.";
            return Err(Fault::forbidden(message));
        }
        Ok(image)
    });
    let image = image.await?;
    let Some(contents) = &image.contents else { return Ok(Reply::empty(204)) };
    let size = contents.size_bytes;
    let range = asked.map(|text| parse(&text, size)).transpose()?.flatten();
    let (first, length) = range.unwrap_or((0, size));
    let bytes = match verify {
        true => service.part(service.verified(contents).await?, first, length)?,
        false => match service.cached_copy(contents) {
            Some(file) => service.part(file, first, length)?,
            None => service.bytes(contents, first, length).await?,
        },
    };
    let mut reply = Reply::empty(if range.is_some() { 206 } else { 200 })
        .content_type("application/octet-stream")
        .header(header::CONTENT_LENGTH, length.to_string())
        .header(header::ACCEPT_RANGES, "bytes")
        .header(HeaderName::from_static("content-md5"), &contents.md5);
    if range.is_some() {
        reply = reply.header(header::CONTENT_RANGE, format!("bytes {first}-{}/{size}", first + length - 1));
    }
    Ok(reply.body(bytes))
}

pub fn stream(file: File, length: u64) -> Body {
    let file = tokio::io::AsyncReadExt::take(tokio::fs::File::from_std(file), length);
    Body::from_stream(ReaderStream::with_capacity(file, CHUNK))
}

/// Without a thread: see [`store::Store::is_inline`].
pub fn whole(file: File, length: u64) -> Result<Body> {
    let mut bytes = Vec::new();
    let read = file.take(length).read_to_end(&mut bytes);
    read.map_err(|error| Fault::bug("read an image file").because(error))?;
    Ok(Body::from(bytes))
}

/// First byte and length of a range. None for a unit or a list that is not understood, which HTTP says to ignore;
/// Range for one that lies outside.
fn parse(text: &str, size: u64) -> Result<Option<(u64, u64)>> {
    let outside = || Fault::new(FaultKind::Range, format!("The range '{text}' lies outside of the {size} bytes."));
    let Some(spec) = text.trim().strip_prefix("bytes=").filter(|spec| !spec.contains(',')) else { return Ok(None) };
    let Some((from, to)) = spec.trim().split_once('-') else { return Err(outside()) };
    let number = |text: &str| text.parse::<u64>().map_err(|_| outside());
    let (first, last) = match (from, to) {
        ("", suffix) => (size.saturating_sub(number(suffix)?), size.saturating_sub(1)),
        (from, "") => (number(from)?, size.saturating_sub(1)),
        (from, to) => (number(from)?, number(to)?.min(size.saturating_sub(1))),
    };
    if first >= size || last < first {
        return Err(outside());
    }
    Ok(Some((first, last - first + 1)))
}
