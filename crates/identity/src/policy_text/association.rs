//! Which policy holds for an endpoint (OS-ENDPOINT-POLICY): its own, else that of its service in its region or the
//! nearest region above, else that of its service. Each of them has at most one.

use super::shown;
use crate::Identity;
use crate::catalog::endpoint;
use crate::documents::*;
use crate::listing::{collection, forbid, missing, single};
use crate::model::Model;
use base::{EndpointId, Fault, Result, ServiceId};
use policy::Target;
use rest::{Call, Reply, Route};
use sha2::Digest;
use std::sync::Arc;
use store::Tx;

/// The most regions above one another that are looked at.
const DEPTH: usize = 32;

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let endpoint = "/v3/policies/{id}/OS-ENDPOINT-POLICY/endpoints/{endpoint_id}";
    let service = "/v3/policies/{id}/OS-ENDPOINT-POLICY/services/{service_id}";
    let region = "/v3/policies/{id}/OS-ENDPOINT-POLICY/services/{service_id}/regions/{region_id}";
    routes![identity;
        PUT endpoint, "policies:endpoint:add", "identity:create_policy_association_for_endpoint", 204, add;
        GET endpoint, "policies:endpoint:check", "identity:check_policy_association_for_endpoint", 204, check;
        DELETE endpoint, "policies:endpoint:remove", "identity:delete_policy_association_for_endpoint", 204, remove;
        PUT service, "policies:service:add", "identity:create_policy_association_for_service", 204, add;
        GET service, "policies:service:check", "identity:check_policy_association_for_service", 204, check;
        DELETE service, "policies:service:remove", "identity:delete_policy_association_for_service", 204, remove;
        PUT region, "policies:region:add", "identity:create_policy_association_for_region_and_service", 204, add;
        GET region, "policies:region:check", "identity:check_policy_association_for_region_and_service", 204, check;
        DELETE region, "policies:region:remove", "identity:delete_policy_association_for_region_and_service", 204, remove;
        GET "/v3/policies/{id}/OS-ENDPOINT-POLICY/endpoints", "policies:endpoints", "identity:list_endpoints_for_policy", 200, endpoints;
        GET "/v3/endpoints/{id}/OS-ENDPOINT-POLICY/policy", "endpoints:policy", "identity:get_policy_for_endpoint", 200, of_endpoint;
    ]
}

/// The document's id follows from what it is for: a second policy for the same takes the place of the first.
fn id_of(endpoint: Option<&str>, service: Option<&str>, region: Option<&str>) -> String {
    let parts = [endpoint, service, region].map(Option::unwrap_or_default).join("\n");
    sha2::Sha256::digest(parts).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

impl PolicyAssociation {
    /// Under the id of what it is for.
    pub(crate) fn named(self) -> PolicyAssociation {
        let id = id_of(self.endpoint_id.as_deref(), self.service_id.as_deref(), self.region_id.as_deref());
        PolicyAssociation { id, ..self }
    }
}

/// What the path asks for.
fn asked(call: &Call) -> PolicyAssociation {
    let given = |name| Some(call.param(name)).filter(|id| !id.is_empty());
    let (endpoint, service, region) = (given("endpoint_id"), given("service_id"), given("region_id"));
    PolicyAssociation {
        id: id_of(endpoint, service, region),
        policy_id: call.param("id").to_owned(),
        endpoint_id: endpoint.map(EndpointId::new),
        service_id: service.map(ServiceId::new),
        region_id: region.map(str::to_owned),
    }
}

/// Policy, endpoint, service and region exist.
fn exist(model: &Model, asked: &PolicyAssociation) -> Result<()> {
    model.policies.get(&asked.policy_id).ok_or_else(|| missing("policy", &asked.policy_id))?;
    if let Some(id) = &asked.endpoint_id {
        model.endpoints.get(id).ok_or_else(|| missing("endpoint", id))?;
    }
    if let Some(id) = &asked.service_id {
        model.services.get(id).ok_or_else(|| missing("service", id))?;
    }
    if let Some(id) = &asked.region_id {
        model.regions.get(id).ok_or_else(|| missing("region", id))?;
    }
    Ok(())
}

async fn add(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let asked = asked(&call);
    exist(&identity.model(), &asked)?;
    let work = move |tx: &mut Tx| {
        tx.get::<PolicyText>(&asked.policy_id)?.ok_or_else(|| missing("policy", &asked.policy_id))?;
        if let Some(id) = &asked.endpoint_id {
            tx.get::<Endpoint>(id)?.ok_or_else(|| missing("endpoint", id))?;
        }
        if let Some(id) = &asked.service_id {
            tx.get::<Service>(id)?.ok_or_else(|| missing("service", id))?;
        }
        if let Some(id) = &asked.region_id {
            tx.get::<Region>(id)?.ok_or_else(|| missing("region", id))?;
        }
        Ok(tx.put(&asked).map(drop)?)
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}

fn known(identity: &Identity, call: &Call) -> Result<PolicyAssociation> {
    forbid(call, &Target::new())?;
    let (asked, model) = (asked(call), identity.model());
    exist(&model, &asked)?;
    let known = model.policy_associations.get(&asked.id).filter(|known| known.policy_id == asked.policy_id);
    known.map(|_| ()).ok_or_else(|| Fault::not_found("Could not find policy association."))?;
    Ok(asked)
}

async fn check(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    known(&identity, &call)?;
    Ok(Reply::empty(204))
}

async fn remove(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let known = known(&identity, &call)?;
    let work = move |tx: &mut Tx| match tx.get::<PolicyAssociation>(&known.id)? {
        Some(now) if now.policy_id == known.policy_id => Ok(tx.delete::<PolicyAssociation>(&known.id).map(drop)?),
        _ => Err(Fault::not_found("Could not find policy association.")),
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}

/// The policy that holds for an endpoint.
fn policy<'a>(model: &'a Model, endpoint: &Endpoint) -> Option<&'a Arc<PolicyText>> {
    let service = Some(endpoint.service_id.as_str());
    let mut ids = vec![id_of(Some(&endpoint.id), None, None)];
    let mut region = endpoint.region_id.as_deref();
    for _ in 0..DEPTH {
        let Some(id) = region else { break };
        ids.push(id_of(None, service, Some(id)));
        region = model.regions.get(id).and_then(|region| region.parent_region_id.as_deref());
    }
    ids.push(id_of(None, service, None));
    let known = ids.iter().find_map(|id| model.policy_associations.get(id))?;
    model.policies.get(&known.policy_id)
}

async fn endpoints(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let (id, model) = (call.param("id"), identity.model());
    model.policies.get(id).ok_or_else(|| missing("policy", id))?;
    let fits = |endpoint: &&Arc<Endpoint>| policy(&model, endpoint).is_some_and(|policy| policy.id == id);
    let found = model.endpoints.all().filter(fits);
    collection(&call, "endpoints", found.map(|found| endpoint::shown(&identity, &call, found)).collect())
}

async fn of_endpoint(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let (id, model) = (call.param("id"), identity.model());
    let endpoint = model.endpoints.get(id).ok_or_else(|| missing("endpoint", id))?;
    let found = policy(&model, endpoint);
    let found = found.ok_or_else(|| Fault::not_found(format!("No policy is associated with endpoint {id}.")))?;
    single(&call, 200, "policy", shown(&call, found))
}
