//! Users: in a domain, with a password or without.
//!
//! A changed password, a disabled or deleted user makes all earlier tokens of the user worthless in the same commit.

use crate::compliance::By;
use crate::directory::{self, Listed};
use crate::documents::*;
use crate::fields::{Fields, merge_options};
use crate::login_limit::Subject;
use crate::listing::{allowed, collection, cut, filtered, forbid, linked, missing, single};
use crate::project::{pairs, remove_where, revoke, taken, usual_domain};
use crate::token::request::UserReference;
use crate::{Identity, assignment::effective};
use base::{DomainId, Fault, ProjectId, Result};
use policy::Target;
use rest::{Access, Call, Method, Reply, Route};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Tx;

const NAME_CHARS: usize = 255;

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/users", "/v3/users/{id}");
    let mut routes = routes![identity;
        GET all, "users:list", "identity:list_users", 200, list;
        POST all, "users:create", "identity:create_user", 201, create;
        GET one, "users:show", "identity:get_user", 200, show;
        PATCH one, "users:update", "identity:update_user", 200, update;
        DELETE one, "users:delete", "identity:delete_user", 204, delete;
        GET "/v3/users/{id}/projects", "users:projects", "identity:list_user_projects", 200, projects;
        GET "/v3/users/{id}/groups", "users:groups", "identity:list_groups_for_user", 200, groups;
    ];
    // The old password is the right.
    routes.push(Route::new(
        identity,
        Method::POST,
        "/v3/users/{id}/password",
        "users:password",
        Access::Open,
        204,
        password,
    ));
    routes
}

pub(crate) fn shown(call: &Call, user: &User) -> Value {
    let mut object = user.extra.clone();
    object.extend(pairs([
        ("id", json!(user.id)),
        ("name", json!(user.name)),
        ("domain_id", json!(user.domain_id)),
        ("enabled", json!(user.enabled)),
        ("options", json!(user.options)),
        ("password_expires_at", json!(user.password_end().map(|end| end.iso_naive()))),
        ("federated", shown_federated(&user.federated)),
    ]));
    if let Some(project) = &user.default_project_id {
        object.insert("default_project_id".into(), json!(project));
    }
    linked(call, "users", object)
}

/// By providers, each with its protocols.
fn shown_federated(federated: &[FederatedId]) -> Value {
    let mut providers: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for of in federated {
        let protocol = json!({"protocol_id": of.protocol_id, "unique_id": of.unique_id});
        providers.entry(&of.idp_id).or_default().push(protocol);
    }
    providers.into_iter().map(|(id, protocols)| json!({"idp_id": id, "protocols": protocols})).collect()
}

pub(crate) fn target(user: &User) -> Target<'static> {
    Target::new()
        .with("target.user.id", user.id.to_string())
        .with("target.user.domain_id", user.domain_id.to_string())
        .with("user_id", user.id.to_string())
}

pub(crate) fn find(identity: &Identity, id: &str) -> Option<Arc<User>> {
    let model = identity.model();
    model.users.get(id).filter(|user| model.stands(user)).cloned()
}

/// The user of the path, after the right has been asked for; as its directory has it now, where it has one.
async fn looked_up(identity: &Identity, call: &Call) -> Result<Arc<User>> {
    let id = call.param("id");
    let known = identity.model().users.get(id).cloned();
    let known = allowed(call, known, "user", |user| target(user))?;
    identity.renew_user(&known).await?;
    find(identity, id).ok_or_else(|| missing("user", id))
}

/// The user of the path, after the right to change it has been asked for.
fn to_change(identity: &Identity, call: &Call) -> Result<Arc<User>> {
    let user = allowed(call, find(identity, call.param("id")), "user", |user| target(user))?;
    match &user.directory {
        Some(_) => Err(directory::read_only(&identity.model(), &user.domain_id)),
        None => Ok(user),
    }
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let scope = call.caller.domain_id();
    forbid(&call, &Target::new().with("target.domain_id", scope.as_ref().map(|id| id.to_string())))?;
    let listed = identity.listed_users(&call).await?;
    let items: Vec<_> = {
        let model = identity.model();
        let mine = |user: &User| scope.as_ref().is_none_or(|id| user.domain_id == *id);
        let there = |user: &User| {
            let of = user.directory.as_ref();
            Listed::has(listed.as_ref(), &model, &user.id, &user.domain_id, of)
                && Listed::fits(&call, &user.name, of, &listed)
        };
        let found = model.users.all().filter(|user| mine(user) && there(user) && fits_federated(&call, user));
        found.map(|user| shown(&call, user)).collect()
    };
    cut(&call, "users", items, &["domain_id", "enabled"], listed.is_some_and(|listed| listed.truncated))
}

/// Filters by what a user is at identity providers.
fn fits_federated(call: &Call, user: &User) -> bool {
    let asked = ["idp_id", "protocol_id", "unique_id"].map(|name| call.query.get(name));
    let fits = |of: &FederatedId| {
        let has = [&of.idp_id, &of.protocol_id, &of.unique_id];
        asked.iter().zip(has).all(|(asked, has)| asked.is_none_or(|asked| asked == has))
    };
    asked.iter().all(Option::is_none) || user.federated.iter().any(fits)
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let user = looked_up(&identity, &call).await?;
    single(&call, 200, "user", shown(&call, &user))
}

/// The hash of the password in a body; the outer option tells whether one was given.
async fn hashed(identity: &Identity, fields: &mut Fields) -> Result<Option<Option<String>>> {
    match fields.text("password")? {
        None => Ok(None),
        Some(None) => Ok(Some(None)),
        Some(Some(password)) => Ok(Some(Some(hash(identity, password).await?))),
    }
}

async fn hash(identity: &Identity, password: String) -> Result<String> {
    base::limits::text("password", &password, crate::password::PASSWORD_BYTES)?;
    identity.options.compliance.fits(&password)?;
    if password.is_empty() {
        return Err(Fault::invalid("Invalid input for field 'password': it is empty."));
    }
    identity.passwords.hash(password, identity.env.random.clone()).await
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let mut fields = Fields::read(&mut call, "user").await?;
    let domain = fields.id("domain_id")?.flatten().unwrap_or_else(|| usual_domain(&call));
    forbid(&call, &Target::new().with("target.user.domain_id", domain.clone()))?;
    directory::writable(&identity.model(), &domain)?;
    let name = fields.need_name("name", NAME_CHARS)?;
    let password = hashed(&identity, &mut fields).await?.flatten();
    let mut user = User {
        id: identity.env.uuid_hex().into(),
        name,
        domain_id: DomainId::new(domain),
        enabled: fields.flag("enabled")?.unwrap_or(true),
        default_project_id: fields.id("default_project_id")?.flatten().map(ProjectId::new),
        password_changed: None,
        password: None,
        password_expires_at: None,
        password_history: Vec::new(),
        options: options(&mut fields)?,
        federated: federated(&mut fields)?.unwrap_or_default(),
        shadow: false,
        directory: None,
        extra: extras(fields)?,
    };
    if password.is_some() {
        identity.options.compliance.set(&mut user, password, call.now, By::Other);
    }
    let shown = shown(&call, &user);
    identity.write(&call, move |tx| insert(tx, &user)).await?;
    single(&call, 201, "user", shown)
}

/// What is left, without what only the service says.
fn extras(mut fields: Fields) -> Result<Extra> {
    for ours in ["password_expires_at", "original_password"] {
        fields.take(ours);
    }
    fields.rest()
}

/// The most identities that a user has elsewhere.
const FEDERATED: usize = 64;

/// Who a user is at identity providers, where a body says so.
fn federated(fields: &mut Fields) -> Result<Option<Vec<FederatedId>>> {
    #[derive(Deserialize)]
    struct Provider {
        idp_id: String,
        protocols: Vec<Known>,
    }
    #[derive(Deserialize)]
    struct Known {
        protocol_id: String,
        unique_id: String,
    }
    let Some(given) = fields.take("federated").filter(|given| !given.is_null()) else { return Ok(None) };
    let wrong = |why: String| Fault::invalid(format!("Invalid input for field 'federated': {why}."));
    let providers = Vec::<Provider>::deserialize(&given).map_err(|error| wrong(error.to_string()))?;
    let mut all = Vec::new();
    for provider in providers {
        for Known { protocol_id, unique_id } in provider.protocols {
            for text in [&provider.idp_id, &protocol_id, &unique_id] {
                base::limits::text("federated", text, base::limits::NAME_CHARS)?;
            }
            all.push(FederatedId { idp_id: provider.idp_id.clone(), protocol_id, unique_id });
        }
    }
    all.sort();
    let before = all.len();
    all.dedup();
    if before > FEDERATED || all.len() < before {
        return Err(wrong(format!("it has more than {FEDERATED} entries, or one twice")));
    }
    Ok(Some(all))
}

/// Providers and protocols that are there, and nobody else's identity.
fn check_federated(tx: &mut Tx, user: &User) -> Result<()> {
    for of in &user.federated {
        if tx.get::<IdentityProvider>(&of.idp_id)?.is_none() {
            return Err(Fault::invalid(format!("Could not find Identity Provider: {}", of.idp_id)));
        }
        if tx.get::<Protocol>(&Protocol::id_of(&of.idp_id, &of.protocol_id))?.is_none() {
            return Err(Fault::invalid(format!(
                "Could not find federated protocol {} for Identity Provider: {}.",
                of.protocol_id, of.idp_id
            )));
        }
        let other = tx.get_unique::<User>("federated", [&of.idp_id, &of.protocol_id, &of.unique_id])?;
        if other.is_some_and(|other| other.id != user.id) {
            return Err(crate::duplicate("federated_user", &of.unique_id));
        }
    }
    Ok(())
}

/// What Keystone knows to do differently for one user.
const OPTIONS: [&str; 6] = [
    "ignore_change_password_upon_first_use",
    "ignore_password_expiry",
    "ignore_lockout_failure_attempts",
    "ignore_user_inactivity",
    "lock_password",
    "multi_factor_auth_enabled",
];

/// Flags that are known must be flags, and rules lists of methods; null takes one away.
fn options(fields: &mut Fields) -> Result<Extra> {
    let options = fields.object("options")?.unwrap_or_default();
    if let Some(rules) = options.get("multi_factor_auth_rules").filter(|rules| !rules.is_null()) {
        check_rules(rules)?;
    }
    for (name, value) in options.iter().filter(|(name, _)| OPTIONS.contains(&name.as_str())) {
        if !value.is_boolean() && !value.is_null() {
            return Err(Fault::invalid(format!("Invalid input for field 'options': {name} is true, false or null.")));
        }
    }
    Ok(options)
}

/// The most rules of a user, and the most methods of a rule.
const RULES: usize = 64;

/// Lists of names of methods: none of them empty, and nothing in them twice.
fn check_rules(rules: &Value) -> Result<()> {
    let wrong = |why: &str| {
        Fault::invalid(format!(
            "Invalid input for field 'options': multi_factor_auth_rules {why}; right is [[\"password\", \"totp\"], …]."
        ))
    };
    let lists = rules.as_array().ok_or_else(|| wrong("is no list"))?;
    if lists.len() > RULES {
        return Err(wrong(&format!("has more than {RULES} rules")));
    }
    let mut seen = std::collections::BTreeSet::new();
    for list in lists {
        let names = list.as_array().filter(|names| !names.is_empty() && names.len() <= RULES);
        let names = names.ok_or_else(|| wrong("has a rule that is no list, or one that is empty or too long"))?;
        let mut methods = std::collections::BTreeSet::new();
        for name in names {
            let name = name.as_str().ok_or_else(|| wrong("names a method by something other than a string"))?;
            base::limits::text("a method's name", name, base::limits::NAME_CHARS)?;
            if !methods.insert(name) {
                return Err(wrong("names a method twice in one rule"));
            }
        }
        if !seen.insert(names.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()) {
            return Err(wrong("has a rule twice"));
        }
    }
    Ok(())
}

fn insert(tx: &mut Tx, user: &User) -> Result<()> {
    tx.get::<Project>(&user.domain_id)?.filter(|d| d.is_domain).ok_or_else(|| missing("domain", &user.domain_id))?;
    default_project(tx, user.default_project_id.as_ref())?;
    check_federated(tx, user)?;
    taken(tx.create(user).map(drop), "user", &user.name)
}

/// A domain is no default project; a project that does not exist is taken, as Keystone does.
fn default_project(tx: &mut Tx, id: Option<&ProjectId>) -> Result<()> {
    let Some(id) = id else { return Ok(()) };
    if tx.get::<Project>(id)?.is_some_and(|project| project.is_domain) {
        return Err(Fault::invalid(format!("User's default project ID cannot be a domain ID: {id}.")));
    }
    Ok(())
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let known = to_change(&identity, &call)?;
    let mut fields = Fields::read(&mut call, "user").await?;
    fields.fixed("id", &json!(known.id))?;
    fields.fixed("domain_id", &json!(known.domain_id))?;
    let name = fields.name("name", NAME_CHARS)?;
    let enabled = fields.flag("enabled")?;
    let project = fields.id("default_project_id")?;
    let options = options(&mut fields)?;
    let federated = federated(&mut fields)?;
    let password = hashed(&identity, &mut fields).await?;
    let extra = extras(fields)?;
    let (id, compliance) = (known.id.to_string(), identity.options.compliance.clone());
    let work = move |tx: &mut Tx| {
        let mut user = tx.get::<User>(&id)?.ok_or_else(|| missing("user", &id))?.doc;
        let was = user.enabled;
        user.name = name.clone().unwrap_or(user.name);
        user.enabled = enabled.unwrap_or(was);
        if let Some(project) = &project {
            user.default_project_id = project.clone().map(ProjectId::new);
            default_project(tx, user.default_project_id.as_ref())?;
        }
        merge_options(&mut user.options, options.clone());
        user.extra.extend(extra.clone());
        // An empty list says nothing, as in Keystone.
        if let Some(federated) = federated.clone().filter(|federated| !federated.is_empty()) {
            user.federated = federated;
            check_federated(tx, &user)?;
        }
        if let Some(password) = &password {
            compliance.set(&mut user, password.clone(), tx.now(), By::Other);
            revoke(tx, Revocation { user_id: Some(user.id.clone()), ..Revocation::default() })?;
        } else if was && !user.enabled {
            revoke(tx, Revocation { user_id: Some(user.id.clone()), ..Revocation::default() })?;
        }
        taken(tx.update(&user), "user", &user.name)?;
        Ok(user)
    };
    let user = identity.write(&call, work).await?;
    single(&call, 200, "user", shown(&call, &user))
}

async fn password(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let mut fields = Fields::read(&mut call, "user").await?;
    let original = fields.text("original_password")?.flatten();
    let original = original.ok_or_else(|| fields.missing("original_password"))?;
    let wanted = fields.text("password")?.flatten().ok_or_else(|| fields.missing("password"))?;
    let id = call.param("id").to_owned();
    // One that has expired still serves for this.
    let mut subjects = vec![Subject::User(&id)];
    subjects.extend(identity.source(&call).map(Subject::Source));
    let taken = identity.login_limit.take(&identity.options.login_limit, &subjects, call.now)?;
    let reference = UserReference { id: Some(id.clone()), ..UserReference::default() };
    let asked = directory::asked_for(&identity.model(), &reference)?;
    if let Some(asked) = asked {
        // Only whoever knows the password learns whose it is.
        identity.by_directory(&asked, &original).await?;
        identity.login_limit.give_back(taken);
        return Err(directory::read_only(&identity.model(), asked.domain()));
    }
    let known = identity.logged_in(Some(&id), original).await?.filter(|user| user.enabled);
    if known.is_some() {
        identity.login_limit.give_back(taken);
    }
    let known = known.ok_or_else(|| crate::token::verify::refused("the original password is wrong"))?;
    if known.option("lock_password") {
        return Err(Fault::invalid("The password of this user is locked."));
    }
    let compliance = identity.options.compliance.clone();
    compliance.old_enough(&known, call.now)?;
    let hash = hash(&identity, wanted.clone()).await?;
    identity.never_had(&known, wanted).await?;
    let hash_now = known.password;
    let work = move |tx: &mut Tx| {
        let mut user = tx.get::<User>(&id)?.ok_or_else(|| missing("user", &id))?.doc;
        if user.password != hash_now {
            return Err(Fault::conflict("The password has been changed by someone else."));
        }
        compliance.set(&mut user, Some(hash.clone()), tx.now(), By::User);
        revoke(tx, Revocation { user_id: Some(user.id.clone()), ..Revocation::default() })?;
        tx.update(&user)?;
        Ok(())
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let user = to_change(&identity, &call)?;
    let id = user.id.to_string();
    identity.write(&call, move |tx| remove(tx, &id)).await?;
    Ok(Reply::empty(204))
}

/// Deletes a user and everything that was the user's own.
pub(crate) fn remove(tx: &mut Tx, id: &str) -> Result<()> {
    if tx.get::<User>(id)?.is_none() {
        return Err(missing("user", id));
    }
    remove_where::<Assignment>(tx, "actor", id)?;
    remove_where::<Membership>(tx, "user", id)?;
    remove_where::<ApplicationCredential>(tx, "user", id)?;
    remove_where::<AccessRule>(tx, "user", id)?;
    crate::trust::remove_where(tx, "trustor", id)?;
    crate::trust::remove_where(tx, "trustee", id)?;
    remove_where::<Credential>(tx, "user", id)?;
    remove_where::<RequestToken>(tx, "user", id)?;
    remove_where::<AccessToken>(tx, "user", id)?;
    tx.delete::<User>(id)?;
    Ok(())
}

async fn projects(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let user = looked_up(&identity, &call).await?;
    let items: Vec<_> = {
        let model = identity.model();
        effective::projects(&model, &user.id, &[]).iter().map(|project| crate::project::shown(&call, project)).collect()
    };
    filtered(&call, "projects", items, &["name", "domain_id", "enabled", "parent_id"])
}

async fn groups(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let user = looked_up(&identity, &call).await?;
    let items: Vec<_> = {
        let model = identity.model();
        let groups = model.groups_of(&user.id).filter_map(|id| model.groups.get(id));
        groups.map(|group| crate::group::shown(&call, group)).collect()
    };
    if call.query.has("name") {
        filtered(&call, "groups", items, &["name"])
    } else {
        collection(&call, "groups", items)
    }
}

/// The user with this name, for the bootstrap.
pub(crate) fn by_name(tx: &mut Tx, domain: &str, name: &str) -> Result<Option<User>> {
    Ok(tx.get_unique::<User>("name", [domain, name])?.map(|stored| stored.doc))
}
