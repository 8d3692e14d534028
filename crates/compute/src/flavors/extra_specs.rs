//! Extra specs: properties of a flavor.

use super::{Flavor, find};
use crate::{Ask, Compute, ask, input};
use base::{Fault, Result};
use rest::{Access, Call, Method, Reply, Route};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Stored;

/// The most extra specs of one flavor.
const MOST: usize = 128;

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let path = "/flavors/{flavor_id}/os-extra_specs";
    let one = "/flavors/{flavor_id}/os-extra_specs/{key}";
    let rule = |name| Access::Rule(name);
    vec![
        Route::new(
            state,
            Method::GET,
            path,
            "flavors:extra_specs",
            rule("os_compute_api:os-flavor-extra-specs:index"),
            200,
            index,
        ),
        Route::new(
            state,
            Method::POST,
            path,
            "flavors:extra_specs:create",
            rule("os_compute_api:os-flavor-extra-specs:create"),
            200,
            create,
        ),
        Route::new(
            state,
            Method::GET,
            one,
            "flavors:extra_specs:show",
            rule("os_compute_api:os-flavor-extra-specs:show"),
            200,
            show,
        ),
        Route::new(
            state,
            Method::PUT,
            one,
            "flavors:extra_specs:update",
            rule("os_compute_api:os-flavor-extra-specs:update"),
            200,
            update,
        ),
        Route::new(
            state,
            Method::DELETE,
            one,
            "flavors:extra_specs:delete",
            rule("os_compute_api:os-flavor-extra-specs:delete"),
            200,
            delete,
        ),
    ]
}

async fn flavor(state: &Compute, ask: &Ask) -> Result<Stored<Flavor>> {
    ask.enforce_own()?;
    state.read(ask, |reader, ask| find(reader, ask, ask.param("flavor_id"))).await
}

fn missing(ask: &Ask, id: &str) -> Fault {
    Fault::not_found(format!("Flavor {id} has no extra specs with key {}.", ask.param("key")))
}

async fn index(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let flavor = flavor(&state, &ask).await?;
    Reply::json(200, &json!({"extra_specs": flavor.extra_specs}))
}

async fn show(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let flavor = flavor(&state, &ask).await?;
    let value = flavor.extra_specs.get(ask.param("key")).ok_or_else(|| missing(&ask, &flavor.id))?;
    Reply::json(200, &json!({ask.param("key"): value}))
}

/// Extra specs may be numbers in bodies; they are kept as text.
fn parse(name: &str, value: &Value) -> Result<BTreeMap<String, String>> {
    let map = value
        .as_object()
        .ok_or_else(|| input::refuse(name, value, format!("{} is not of type 'object'", input::repr(value))))?;
    let mut specs = BTreeMap::new();
    for (key, value) in map {
        let text = match value {
            Value::Number(number) => number.to_string(),
            other => input::text(key, other, 0, 255)?,
        };
        model::extra_spec::check(key, &text)?;
        specs.insert(key.clone(), text);
    }
    Ok(specs)
}

async fn create(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, &[]).await?;
    ask.enforce_own()?;
    let mut fields = input::Fields::body(&body)?;
    let specs = parse("extra_specs", fields.need("extra_specs")?)?;
    fields.finish()?;
    put(&state, &ask, &specs).await?;
    Reply::json(200, &json!({"extra_specs": specs}))
}

async fn update(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, &[]).await?;
    ask.enforce_own()?;
    let specs = parse("extra_specs", &body)?;
    if specs.len() != 1 || !specs.contains_key(ask.param("key")) {
        return Err(Fault::invalid("Request body and URI mismatch"));
    }
    put(&state, &ask, &specs).await?;
    Reply::json(200, &specs)
}

async fn put(state: &Compute, ask: &Ask, specs: &BTreeMap<String, String>) -> Result<()> {
    let specs = specs.clone();
    state
        .write(ask, move |tx, ask| {
            let mut flavor = find(tx, ask, ask.param("flavor_id"))?.doc;
            flavor.extra_specs.extend(specs.clone());
            if flavor.extra_specs.len() > MOST {
                return Err(Fault::invalid(format!("A flavor may have at most {MOST} extra specs.")));
            }
            tx.update(&flavor)?;
            Ok(())
        })
        .await
}

async fn delete(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.enforce_own()?;
    state
        .write(&ask, move |tx, ask| {
            let mut flavor = find(tx, ask, ask.param("flavor_id"))?.doc;
            if flavor.extra_specs.remove(ask.param("key")).is_none() {
                return Err(missing(ask, &flavor.id));
            }
            tx.update(&flavor)?;
            Ok(())
        })
        .await?;
    Ok(Reply::empty(200))
}
