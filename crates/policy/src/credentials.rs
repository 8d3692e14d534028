//! What a verified token says about its bearer.

use crate::{Scope, Value};
use base::{DomainId, ProjectId, UserId};

/// The facts that policies look at. Made by the identity service from a verified token; a service never makes its own,
/// except for [`Credentials::internal`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    pub user_id: UserId,
    pub user_name: String,
    pub user_domain_id: DomainId,
    /// Set for a project-scoped token.
    pub project_id: Option<ProjectId>,
    pub project_name: Option<String>,
    pub project_domain_id: Option<DomainId>,
    /// Set for a domain-scoped token.
    pub domain_id: Option<DomainId>,
    /// `all` for a system-scoped token.
    pub system_scope: Option<&'static str>,
    /// Role names, with implied roles expanded.
    pub roles: Vec<String>,
    /// True for nubo's own work, and where a service decided that the bearer counts as administrator.
    pub is_admin: bool,
    pub is_admin_project: bool,
    /// True for trusts, OAuth and application credentials.
    pub is_delegated_auth: bool,
    pub trust_id: Option<String>,
    pub trustor_id: Option<UserId>,
    pub trustee_id: Option<UserId>,
    pub application_credential_id: Option<String>,
    pub access_token_id: Option<String>,
    pub consumer_id: Option<String>,
    /// From `X-Service-Token`.
    pub service_user_id: Option<UserId>,
    pub service_user_domain_id: Option<DomainId>,
    pub service_project_id: Option<ProjectId>,
    pub service_project_domain_id: Option<DomainId>,
    pub service_roles: Vec<String>,
}

impl Credentials {
    /// Of nubo itself, for work that no user asked for.
    pub fn internal() -> Credentials {
        Credentials {
            user_id: UserId::new("nubo"),
            user_name: "nubo".into(),
            roles: ["admin", "service"].map(String::from).into(),
            is_admin: true,
            is_admin_project: true,
            ..Credentials::default()
        }
    }

    pub fn scope(&self) -> Scope {
        if self.system_scope.is_some() {
            Scope::System
        } else if self.domain_id.is_some() {
            Scope::Domain
        } else {
            Scope::Project
        }
    }

    /// Role names compare without case, as in oslo.policy.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|mine| mine.eq_ignore_ascii_case(role))
    }
}

macro_rules! fields {
    ($($field:ident: $($name:literal)|+ => $value:expr;)*) => {
        /// A fact of the credentials that a check may name on its left side.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Field { $($field),*, Roles, ServiceRoles }

        impl Field {
            pub fn parse(name: &str) -> Option<Field> {
                match name {
                    $($($name)|+ => Some(Field::$field),)*
                    "roles" => Some(Field::Roles),
                    "service_roles" => Some(Field::ServiceRoles),
                    _ => None,
                }
            }

            /// The first of its names.
            pub fn name(self) -> &'static str {
                match self {
                    $(Field::$field => [$($name),+][0],)*
                    Field::Roles => "roles",
                    Field::ServiceRoles => "service_roles",
                }
            }

            /// True if `test` holds for the fact, or for one entry where it is a list.
            pub fn any(self, creds: &Credentials, test: &dyn Fn(Value<'_>) -> bool) -> bool {
                match self {
                    $(Field::$field => { let value: fn(&Credentials) -> Value<'_> = $value; test(value(creds)) })*
                    Field::Roles => creds.roles.iter().any(|role| test(role.as_str().into())),
                    Field::ServiceRoles => creds.service_roles.iter().any(|role| test(role.as_str().into())),
                }
            }
        }
    };
}

fn optional(text: Option<&str>) -> Value<'_> {
    text.map_or(Value::Null, Value::from)
}

// The names that Keystone's and oslo.context's policy values have. `token.…` is Keystone's own.
fields! {
    UserId: "user_id" | "user" | "token.user.id" => |c| c.user_id.as_str().into();
    UserName: "user_name" => |c| c.user_name.as_str().into();
    UserDomainId: "user_domain_id" | "token.user.domain.id" => |c| c.user_domain_id.as_str().into();
    ProjectId: "project_id" | "tenant_id" | "tenant" | "token.project.id" => |c| optional(c.project_id.as_deref());
    ProjectName: "project_name" => |c| optional(c.project_name.as_deref());
    ProjectDomainId: "project_domain_id" | "token.project.domain.id" => |c| optional(c.project_domain_id.as_deref());
    DomainId: "domain_id" | "token.domain.id" => |c| optional(c.domain_id.as_deref());
    SystemScope: "system_scope" | "system" => |c| optional(c.system_scope);
    IsAdmin: "is_admin" => |c| c.is_admin.into();
    IsAdminProject: "is_admin_project" => |c| c.is_admin_project.into();
    IsDelegatedAuth: "is_delegated_auth" => |c| c.is_delegated_auth.into();
    TrustId: "trust_id" => |c| optional(c.trust_id.as_deref());
    TrustorId: "trustor_id" => |c| optional(c.trustor_id.as_deref());
    TrusteeId: "trustee_id" => |c| optional(c.trustee_id.as_deref());
    ApplicationCredentialId: "application_credential_id" => |c| optional(c.application_credential_id.as_deref());
    AccessTokenId: "access_token_id" => |c| optional(c.access_token_id.as_deref());
    ConsumerId: "consumer_id" => |c| optional(c.consumer_id.as_deref());
    ServiceUserId: "service_user_id" => |c| optional(c.service_user_id.as_deref());
    ServiceUserDomainId: "service_user_domain_id" => |c| optional(c.service_user_domain_id.as_deref());
    ServiceProjectId: "service_project_id" => |c| optional(c.service_project_id.as_deref());
    ServiceProjectDomainId: "service_project_domain_id" => |c| optional(c.service_project_domain_id.as_deref());
}
