//! Bounds on what comes from outside, in one place.

use crate::{Fault, Result};

/// The most bytes of a JSON request body.
pub const BODY_BYTES: usize = 1 << 20;
/// The deepest nesting of a JSON request body.
pub const JSON_DEPTH: usize = 32;
/// The most characters of a name (OpenStack's own limit nearly everywhere).
pub const NAME_CHARS: usize = 255;
/// The most entries of a list page, whatever the client asks for.
pub const PAGE: usize = 1000;
/// The most bytes of user data, after base64 (Nova's limit).
pub const USER_DATA_BYTES: usize = 65_535;

/// Refuses U+0000 (PostgreSQL cannot keep it) and more than `most` characters. `what` names the field.
pub fn text(what: &str, value: &str, most: usize) -> Result<()> {
    if value.contains('\0') {
        return Err(Fault::invalid(format!(
            "Invalid input for field/attribute {what}: it contains the character U+0000."
        )));
    }
    let chars = value.chars().count();
    if chars > most {
        return Err(Fault::invalid(format!(
            "Invalid input for field/attribute {what}: it has {chars} characters and may have at most {most}."
        )));
    }
    Ok(())
}
