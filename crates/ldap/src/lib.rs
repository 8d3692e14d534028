//! LDAP (RFC 4511) as somebody who reads a directory speaks it: bind with a password, search in pages, go over to TLS.
//!
//! The other side may be anybody who sits on the wire. So a message has a limit before it is read, is never taken apart
//! by recursion, and nothing in it can end the program. What a caller puts into a filter is a value and never becomes
//! part of its structure. Must never know what an entry means, or open a connection by itself.

mod ber;
pub mod connection;
pub mod dn;
pub mod filter;
mod message;

pub use connection::{Connection, Dereference, Found, Scope, Search};
pub use dn::Dn;
pub use filter::Filter;
pub use message::Entry;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// Not what the protocol says; nothing more can be asked of this connection.
    #[error("the directory says what is no LDAP: {0}")]
    Protocol(&'static str),
    /// More than is taken.
    #[error("the directory says more than is taken: {0}")]
    TooMuch(&'static str),
    /// An answer with a result code (RFC 4511, 4.1.9) other than success.
    #[error("the directory answers with the code {code}: {message}")]
    Refused { code: u32, message: String },
    /// A filter of somebody's own writing.
    #[error("the filter cannot be read at its character {0}")]
    Filter(usize),
}

/// The result codes that mean something here.
pub mod code {
    pub const SUCCESS: u32 = 0;
    pub const SIZE_LIMIT_EXCEEDED: u32 = 4;
    pub const NO_SUCH_OBJECT: u32 = 32;
    /// Those by which a directory says that a name and a password do not fit, or that it takes no login of this entry:
    /// constraintViolation, noSuchObject, invalidDNSyntax, inappropriateAuthentication, invalidCredentials,
    /// insufficientAccessRights, unwillingToPerform.
    pub const NO_LOGIN: [u32; 7] = [19, 32, 34, 48, 49, 50, 53];
}
