//! Who asks.

use crate::Service;
use base::{DomainId, ProjectId, Result, UserId};
use http::Method;
use policy::Credentials;
use std::any::Any;
use std::sync::Arc;

/// A caller whose token has been verified. It cannot exist unverified: only [`Tokens::verify`] and [`Caller::system`]
/// make one for a service.
#[derive(Clone)]
pub struct Caller {
    pub credentials: Credentials,
    /// What the identity service wants to find again (the token's own data); opaque to others.
    pub token: Option<Arc<dyn Any + Send + Sync>>,
}

impl Caller {
    /// nubo itself: for the bootstrap and for loops that act on their own. Never made from a request.
    pub fn system() -> Caller {
        let credentials = Credentials {
            user_id: "nubo".into(),
            system_scope: Some("all".into()),
            roles: vec!["admin".into(), "manager".into(), "member".into(), "reader".into(), "service".into()],
            ..Credentials::default()
        };
        Caller { credentials, token: None }
    }

    /// Nobody: on open routes without a token.
    pub fn anonymous() -> Caller {
        Caller { credentials: Credentials::default(), token: None }
    }

    pub fn user_id(&self) -> UserId {
        self.credentials.user_id.clone()
    }

    /// The project of the token's scope; none for other scopes.
    pub fn project_id(&self) -> Option<ProjectId> {
        self.credentials.project_id.clone()
    }

    pub fn domain_id(&self) -> Option<DomainId> {
        self.credentials.domain_id.clone()
    }

    pub fn has_role(&self, role: &str) -> bool {
        self.credentials.roles.iter().any(|held| held.eq_ignore_ascii_case(role))
    }
}

/// Verifies tokens. Filled in by the identity service.
#[async_trait::async_trait]
pub trait Tokens: Send + Sync {
    /// The caller behind a token; Unauthenticated for a token that is unknown, expired or revoked.
    async fn verify(&self, token: &str) -> Result<Arc<Caller>>;

    /// Refuses a request for which the caller's token was not made: some are good for a few paths or services only. Asked
    /// before any handler runs, except on open routes.
    fn admit(&self, _caller: &Caller, _service: &Service, _method: &Method, _path: &str) -> Result<()> {
        Ok(())
    }
}
