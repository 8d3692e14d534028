//! The limits that operators keep in the identity service, for services that have no quota calls of their own.

use base::{ProjectId, Result};
use store::Reader;

pub trait Limits: Send + Sync {
    /// What a project may use of a resource of a service: its own limit, else the registered default. None where
    /// nothing is registered; negative is unlimited.
    fn limit(
        &self,
        reader: &mut Reader,
        project: &ProjectId,
        service_type: &str,
        resource: &str,
    ) -> Result<Option<i64>>;
}
