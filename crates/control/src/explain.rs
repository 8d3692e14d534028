//! `GET /nubo/v1/explain/{kind}/{id}`: what a service says of its object, and what the loops have against it.

use crate::own_api::Own;
use base::{Fault, HostName, Result};
use contract::{Asking, Explanation};
use policy::Target;
use rest::{Call, Reply};
use serde_json::json;
use std::sync::Arc;
use store::Reader;

/// Names of hosts, and objects of other projects, need this.
pub(crate) const ADMIN_RULE: &str = "nubo:explain:all";

/// An object of a kind that does not exist, or that the caller may not know of, is 404.
pub(crate) async fn explain(own: Arc<Own>, call: Call) -> Result<Reply> {
    call.enforce(&Target::default())?;
    let asking = Asking {
        project_id: call.caller.project_id().map(|project| project.to_string()),
        admin: call.may(ADMIN_RULE, &Target::default()),
    };
    let (kind, id) = (call.param("kind").to_owned(), call.param("id").to_owned());
    base::limits::text("id", &id, 255)?;
    let sharing = (kind == "host" && asking.admin).then(|| own.sessions.memory_sharing(&HostName::new(id.clone()))).flatten();
    let services = own.explains.clone();
    let Some(service) = services.into_iter().find(|service| service.kinds().contains(&kind.as_str())) else {
        let known: Vec<&str> = own.explains.iter().flat_map(|service| service.kinds()).copied().collect();
        return Err(Fault::not_found(format!("There is no kind {kind:.64}. There are: {}.", known.join(", "))));
    };
    let found = own.store.read(move |reader| {
        let found = service.explain(reader, &asking, &kind, &id)?;
        let mut found = found.ok_or_else(|| Fault::not_found(format!("No {kind} {id} could be found.")))?;
        if let Some(sharing) = &sharing {
            found.details.insert("memory_sharing".into(), json!(sharing));
        }
        add_troubles(reader, &asking, &mut found)?;
        Ok(found)
    });
    call.reply(200, &json!({"explanation": found.await?}))
}

/// What control itself could not do. An error of ours may name anything, so owners read only that there is one.
fn add_troubles(reader: &mut Reader, asking: &Asking, found: &mut Explanation) -> Result<()> {
    let Some(worst) = engine::Trouble::about(reader, &found.id)?.into_iter().next() else { return Ok(()) };
    if let Some(waiting) = &mut found.waiting
        && waiting.attempts < worst.attempts
    {
        waiting.attempts = worst.attempts;
        waiting.last_error = Some(match asking.admin {
            true => worst.last_error.clone(),
            false => "control could not go on; it tries again, and the administrator sees why".to_owned(),
        });
    }
    if asking.admin {
        found.details.insert("trouble".into(), json!(worst));
    }
    Ok(())
}
