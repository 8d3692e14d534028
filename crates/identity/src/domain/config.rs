//! Options of a domain, in the groups `identity` and `ldap`, under the names that Keystone has for them.
//!
//! They are kept and given back; secret ones are never shown. What the options mean is for whoever uses them. The group
//! `security_compliance` is the cloud's own and can only be read, in the default domain, so that a client may learn what
//! a password must look like.

use crate::Identity;
use crate::documents::*;
use crate::listing::{forbid, forbid_rule, missing};
use crate::project::pairs;
use base::{Fault, Result};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Tx;

/// Group and name of the options that are never shown.
pub(crate) const SENSITIVE: &[(&str, &str)] = &[("ldap", "password")];
/// The longest value, as JSON.
const VALUE_BYTES: usize = 4096;
const COMPLIANCE: &str = "security_compliance";

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let whole = "/v3/domains/{id}/config";
    let (group, option) = ("/v3/domains/{id}/config/{group}", "/v3/domains/{id}/config/{group}/{option}");
    routes![identity;
        PUT whole, "domain_config:create", "identity:create_domain_config", 201, create;
        GET whole, "domain_config:show", "identity:get_domain_config", 200, show;
        PATCH whole, "domain_config:update", "identity:update_domain_config", 200, change;
        DELETE whole, "domain_config:delete", "identity:delete_domain_config", 204, remove;
        GET group, "domain_config:show_group", "identity:get_domain_config", 200, show;
        PATCH group, "domain_config:update_group", "identity:update_domain_config", 200, change;
        DELETE group, "domain_config:delete_group", "identity:delete_domain_config", 204, remove;
        GET option, "domain_config:show_option", "identity:get_domain_config", 200, show;
        PATCH option, "domain_config:update_option", "identity:update_domain_config", 200, change;
        DELETE option, "domain_config:delete_option", "identity:delete_domain_config", 204, remove;
        GET "/v3/domains/config/default", "domain_config:default", "identity:get_domain_config_default", 200, usual;
        GET "/v3/domains/config/{group}/default", "domain_config:default_group", "identity:get_domain_config_default", 200, usual;
        GET "/v3/domains/config/{group}/{option}/default", "domain_config:default_option", "identity:get_domain_config_default", 200, usual;
    ]
}

type Groups = BTreeMap<String, Extra>;

/// Every option that may be set, with its value where no domain says otherwise.
fn defaults() -> [(&'static str, Value); 2] {
    [("identity", json!({"driver": "sql", "list_limit": null})), ("ldap", ldap())]
}

/// Keystone's defaults.
pub(crate) fn ldap() -> Value {
    let options = pairs([
        ("url", json!("ldap://localhost")),
        ("user", json!(null)),
        ("suffix", json!("cn=example,cn=com")),
        ("query_scope", json!("one")),
        ("page_size", json!(0)),
        ("alias_dereferencing", json!("default")),
        ("debug_level", json!(null)),
        ("chase_referrals", json!(null)),
        ("user_tree_dn", json!(null)),
        ("user_filter", json!(null)),
        ("user_objectclass", json!("inetOrgPerson")),
        ("user_id_attribute", json!("cn")),
        ("user_name_attribute", json!("sn")),
        ("user_mail_attribute", json!("mail")),
        ("user_description_attribute", json!("description")),
        ("user_pass_attribute", json!("userPassword")),
        ("user_enabled_attribute", json!("enabled")),
        ("user_enabled_invert", json!(false)),
        ("user_enabled_mask", json!(0)),
        ("user_enabled_default", json!("True")),
        ("user_attribute_ignore", json!(["default_project_id"])),
        ("user_default_project_id_attribute", json!(null)),
        ("user_enabled_emulation", json!(false)),
        ("user_enabled_emulation_dn", json!(null)),
        ("user_enabled_emulation_use_group_config", json!(false)),
        ("user_additional_attribute_mapping", json!([])),
        ("group_tree_dn", json!(null)),
        ("group_filter", json!(null)),
        ("group_objectclass", json!("groupOfNames")),
        ("group_id_attribute", json!("cn")),
        ("group_name_attribute", json!("ou")),
        ("group_members_are_ids", json!(false)),
        ("group_member_attribute", json!("member")),
        ("group_desc_attribute", json!("description")),
        ("group_attribute_ignore", json!([])),
        ("group_additional_attribute_mapping", json!([])),
        ("tls_cacertfile", json!(null)),
        ("tls_cacertdir", json!(null)),
        ("use_tls", json!(false)),
        ("tls_req_cert", json!("demand")),
        ("use_pool", json!(true)),
        ("pool_size", json!(10)),
        ("pool_retry_max", json!(3)),
        ("pool_retry_delay", json!(0.1)),
        ("pool_connection_timeout", json!(-1)),
        ("pool_connection_lifetime", json!(600)),
        ("use_auth_pool", json!(true)),
        ("auth_pool_size", json!(100)),
        ("auth_pool_connection_lifetime", json!(60)),
    ]);
    Value::Object(options.collect())
}

fn bad(why: String) -> Fault {
    Fault::forbidden(format!("Invalid domain specific configuration: {why}."))
}

fn sensitive(group: &str, option: &str) -> bool {
    SENSITIVE.contains(&(group, option))
}

/// Group and option can be set for a domain.
fn known(group: &str, option: Option<&str>) -> Result<()> {
    let defaults = defaults();
    let Some((_, options)) = defaults.iter().find(|(name, _)| *name == group) else {
        return Err(bad(format!("Group {group} is not supported for domain specific configurations")));
    };
    match option {
        Some(option) if options.get(option).is_none() && !sensitive(group, option) => {
            Err(bad(format!("Option {option} in group {group} is not supported for domain specific configurations")))
        }
        _ => Ok(()),
    }
}

/// An option of a domain with a value that it may have.
pub(crate) fn may_be_set(group: &str, option: &str, value: &Value) -> bool {
    known(group, Some(option)).is_ok() && !value.is_object() && value.to_string().len() <= VALUE_BYTES
}

/// The group and option of the path.
fn named(call: &Call) -> (Option<&str>, Option<&str>) {
    let part = |name| Some(call.param(name)).filter(|text| !text.is_empty());
    (part("group"), part("option"))
}

/// The options of a body, all of which are known.
fn groups(value: Value) -> Result<Groups> {
    let Value::Object(map) = value else { return Err(bad("It is no object".into())) };
    if map.is_empty() {
        return Err(bad("No options specified".into()));
    }
    let mut groups = Groups::new();
    for (group, options) in map {
        let Value::Object(options) = options else {
            return Err(bad(format!("The value of group {group} should be an object of options")));
        };
        if options.is_empty() {
            return Err(bad(format!("The value of group {group} should be an object of options")));
        }
        for (option, value) in &options {
            known(&group, Some(option))?;
            if !may_be_set(&group, option, value) {
                return Err(bad(format!(
                    "The value of option {option} in group {group} should be text, a number, a flag or a list, of at most {VALUE_BYTES} bytes"
                )));
            }
        }
        groups.insert(group, options);
    }
    Ok(groups)
}

async fn body(call: &mut Call) -> Result<Value> {
    let mut body: Map<String, Value> = call.json().await?;
    body.remove("config").ok_or_else(|| Fault::invalid("Invalid input for field 'config': it is a required property."))
}

fn domain(identity: &Identity, call: &Call) -> Result<String> {
    let id = call.param("id");
    identity.model().domain(id).map(|domain| domain.id.to_string()).ok_or_else(|| missing("domain", id))
}

/// What is shown of the options, as an answer; NotFound where nothing is left of what the path names.
fn shown(config: Option<&DomainConfig>, domain: &str, path: (Option<&str>, Option<&str>)) -> Result<Value> {
    let mut all = config.map(|config| config.groups.clone()).unwrap_or_default();
    for (group, option) in SENSITIVE {
        all.get_mut(*group).map(|group| group.remove(*option));
    }
    all.retain(|_, options| !options.is_empty());
    let found = match path {
        (None, _) => (!all.is_empty()).then(|| json!(all)),
        (Some(group), None) => all.get(group).map(|options| json!({ group: options })),
        (Some(group), Some(option)) => {
            all.get(group).and_then(|options| options.get(option)).map(|value| json!({ option: value }))
        }
    };
    found.ok_or_else(|| nothing(domain, path))
}

fn nothing(domain: &str, path: (Option<&str>, Option<&str>)) -> Fault {
    let what = match path {
        (None, _) => "any options".to_owned(),
        (Some(group), None) => format!("group {group}"),
        (Some(group), Some(option)) => format!("option {option} in group {group}"),
    };
    Fault::not_found(format!("Could not find {what} in domain configuration for domain {domain}."))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let path = named(&call);
    if path.0 == Some(COMPLIANCE) {
        forbid_rule(&call, "identity:get_security_compliance_domain_config", &Target::new())?;
        let id = domain(&identity, &call)?;
        return call.reply(200, &json!({"config": compliance(&identity, &id, path.1)?}));
    }
    forbid(&call, &Target::new())?;
    let id = domain(&identity, &call)?;
    if let Some(group) = path.0 {
        known(group, path.1)?;
    }
    let config = identity.model().domain_configs.get(&id).cloned();
    call.reply(200, &json!({"config": shown(config.as_deref(), &id, path)?}))
}

/// What passwords must look like.
fn compliance(identity: &Identity, domain: &str, option: Option<&str>) -> Result<Value> {
    if domain != "default" {
        return Err(bad("Security compliance can be read in the default domain only".into()));
    }
    let asked = &identity.options.compliance;
    let mut all = json!({
        "password_regex": asked.password_regex, "password_regex_description": asked.password_regex_description,
    });
    match option {
        None => Ok(json!({ COMPLIANCE: all })),
        Some(option) => match all.get_mut(option) {
            Some(value) => Ok(json!({ option: value.take() })),
            None => Err(bad("Only password_regex and password_regex_description can be read".into())),
        },
    }
}

async fn usual(_: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let all = Value::Object(defaults().into_iter().map(|(name, options)| (name.to_owned(), options)).collect());
    let config = match named(&call) {
        (None, _) => all,
        (Some(group), None) => {
            known(group, None)?;
            json!({ group: all[group] })
        }
        (Some(group), Some(option)) => {
            known(group, Some(option))?;
            let value = all[group].get(option);
            let value = value.ok_or_else(|| bad(format!("Option {option} in group {group} has no default to read")))?;
            json!({ option: value })
        }
    };
    call.reply(200, &json!({ "config": config }))
}

/// Puts new options in the place of all that were.
async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let id = domain(&identity, &call)?;
    let config = DomainConfig { groups: groups(body(&mut call).await?)?, id };
    let answer = shown(Some(&config), &config.id, (None, None)).unwrap_or_else(|_| json!({}));
    let work = move |tx: &mut Tx| {
        tx.get::<Project>(&config.id)?.filter(|d| d.is_domain).ok_or_else(|| missing("domain", &config.id))?;
        let first = tx.get::<DomainConfig>(&config.id)?.is_none();
        tx.put(&config)?;
        Ok(first)
    };
    let first = identity.write(&call, work).await?;
    call.reply(if first { 201 } else { 200 }, &json!({ "config": answer }))
}

/// The options of a body for the path: those of one group or one option name it, and only it.
fn given(call: &Call, value: Value) -> Result<Groups> {
    let (group, option) = named(call);
    let Some(group) = group else { return groups(value) };
    known(group, option)?;
    let given = groups(if option.is_some() { json!({ group: value }) } else { value })?;
    let only = given.len() == 1
        && given
            .get(group)
            .is_some_and(|options| option.is_none_or(|option| options.len() == 1 && options.contains_key(option)));
    if only { Ok(given) } else { Err(bad("The body must have what the path names, and only that".into())) }
}

async fn change(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let id = domain(&identity, &call)?;
    let value = body(&mut call).await?;
    let given = given(&call, value)?;
    let (group, option) = named(&call);
    let (group, option) = (group.map(str::to_owned), option.map(str::to_owned));
    let work = move |tx: &mut Tx| {
        let known = tx.get::<DomainConfig>(&id)?.map(|stored| stored.doc);
        let path = (group.as_deref(), option.as_deref());
        if !has(known.as_ref(), path) {
            return Err(nothing(&id, path));
        }
        let mut config = known.unwrap_or_else(|| DomainConfig { id: id.clone(), groups: Groups::new() });
        for (group, options) in given.clone() {
            config.groups.entry(group).or_default().extend(options);
        }
        tx.put(&config)?;
        Ok(config)
    };
    let config = identity.write(&call, work).await?;
    call.reply(200, &json!({"config": shown(Some(&config), &config.id, (None, None)).unwrap_or_else(|_| json!({}))}))
}

/// What the path names is set, secret options counted in. The whole always is.
fn has(config: Option<&DomainConfig>, path: (Option<&str>, Option<&str>)) -> bool {
    let Some(group) = path.0 else { return true };
    let options = config.and_then(|config| config.groups.get(group));
    options.is_some_and(|options| path.1.is_none_or(|option| options.contains_key(option)))
}

async fn remove(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    let id = domain(&identity, &call)?;
    let (group, option) = named(&call);
    if let Some(group) = group {
        known(group, option)?;
    }
    let (group, option) = (group.map(str::to_owned), option.map(str::to_owned));
    let work = move |tx: &mut Tx| {
        let path = (group.as_deref(), option.as_deref());
        let known = tx.get::<DomainConfig>(&id)?.map(|stored| stored.doc);
        if !has(known.as_ref(), path) {
            return Err(nothing(&id, path));
        }
        // To delete options that were never set is nothing wrong.
        let Some(mut config) = known else { return Ok(()) };
        match path {
            (None, _) => config.groups.clear(),
            (Some(group), None) => drop(config.groups.remove(group)),
            (Some(group), Some(option)) => drop(config.groups.get_mut(group).map(|options| options.remove(option))),
        }
        config.groups.retain(|_, options| !options.is_empty());
        if config.groups.is_empty() {
            tx.delete::<DomainConfig>(&id)?;
        } else {
            tx.put(&config)?;
        }
        Ok(())
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}
