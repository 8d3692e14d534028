//! LUKS, versions 1 and 2: told, never accepted, for there is no key for what is inside.
//!
//! Layout: the LUKS On-Disk Format Specification, 1.2.3, and that of LUKS2, 1.1. Big-endian.

use crate::Source;
use crate::bytes::{Bytes, name, read_up_to};
use crate::detect::Report;
use crate::facts::Facts;

/// Most bytes of LUKS2's header with its JSON (the specification's own bound).
const HEADER_BYTES: u64 = 4 << 20;

/// # Errors
/// Those of the source.
pub(crate) fn report(head: &[u8], source: &dyn Source) -> std::io::Result<Report> {
    let bytes = Bytes(head);
    let payload = match bytes.be16(6) {
        Some(1) => bytes.be32(104).map(|sectors| u64::from(sectors) * 512),
        Some(2) => luks2_payload(bytes, source)?,
        Some(other) => return Ok(Report::problem(format!("has version {other}; LUKS has versions 1 and 2"))),
        None => return Ok(Report::problem("ends inside its header: the upload is truncated")),
    };
    let text = |at: usize, length: usize| bytes.slice(at, length).map(|text| name(until_zero(text)));
    let subformat = match bytes.be16(6) {
        Some(1) => format!("LUKS1 {}-{}", text(8, 32).unwrap_or_default(), text(40, 32).unwrap_or_default()),
        _ => "LUKS2".to_owned(),
    };
    let facts = Facts { subformat: Some(subformat), encryption: Some("luks".to_owned()), ..Facts::default() };
    let end = source.size_bytes();
    let mut problems = vec!["is encrypted, and there is no key for it: upload it decrypted".to_owned()];
    if payload.is_none_or(|payload| payload > end) {
        problems.push("is truncated or corrupt: its data lie beyond its end".to_owned());
    }
    Ok(Report { virtual_size: payload.map_or(0, |payload| end.saturating_sub(payload)), facts, problems })
}

fn until_zero(text: &[u8]) -> &[u8] {
    &text[..text.iter().position(|byte| *byte == 0).unwrap_or(text.len())]
}

/// Where the first segment of LUKS2 begins: `"segments": {"0": {"offset": "16777216", …}}` of its JSON.
fn luks2_payload(head: Bytes<'_>, source: &dyn Source) -> std::io::Result<Option<u64>> {
    let Some(length) = head.be64(8).filter(|length| (8192..=HEADER_BYTES).contains(length)) else { return Ok(None) };
    let area = read_up_to(source, 4096, length as usize - 4096)?;
    let json: Option<serde_json::Value> = serde_json::from_slice(until_zero(&area)).ok();
    Ok(json.and_then(|json| json.get("segments")?.get("0")?.get("offset")?.as_str()?.parse().ok()))
}
