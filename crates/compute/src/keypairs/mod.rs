//! Key pairs: a user's, not a project's. The private half of a generated pair is shown once and never kept.

mod ops;
mod ssh;
mod wire;

use crate::Compute;
use base::{KeyPairId, Result, UserId};
use rest::{Access, Method, Route};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::{Document, Keys, Reader, Stored};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyPair {
    pub id: KeyPairId,
    pub user_id: UserId,
    pub name: String,
    /// One line in OpenSSH's form.
    pub public_key: String,
    /// MD5 over the key's blob, as colon-separated hex.
    pub fingerprint: String,
    /// An integer of its own, which old clients show.
    pub number: u32,
}

impl Document for KeyPair {
    const KIND: &'static str = "key_pair";
    fn id(&self) -> &str {
        &self.id
    }
    fn keys(&self, keys: &mut Keys) {
        keys.index("user", self.user_id.as_str());
        keys.unique("name", [self.user_id.as_str(), &self.name]);
    }
}

/// A user's key pair of this name.
pub fn find(reader: &mut Reader, user: &str, name: &str) -> Result<Option<Stored<KeyPair>>> {
    Ok(reader.get_unique::<KeyPair>("name", [user, name])?)
}

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let rule = |name| Access::Rule(name);
    let one = "/os-keypairs/{name}";
    vec![
        Route::new(
            state,
            Method::GET,
            "/os-keypairs",
            "keypairs:list",
            rule("os_compute_api:os-keypairs:index"),
            200,
            ops::list,
        ),
        Route::new(
            state,
            Method::POST,
            "/os-keypairs",
            "keypairs:create",
            rule("os_compute_api:os-keypairs:create"),
            201,
            ops::create,
        ),
        Route::new(state, Method::GET, one, "keypairs:show", rule("os_compute_api:os-keypairs:show"), 200, ops::show),
        Route::new(
            state,
            Method::DELETE,
            one,
            "keypairs:delete",
            rule("os_compute_api:os-keypairs:delete"),
            204,
            ops::delete,
        ),
    ]
}
