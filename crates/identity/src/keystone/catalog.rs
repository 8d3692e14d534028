//! The catalog of a Keystone, and what hangs on it. Its endpoints lead to the old cloud, so services and endpoints are made
//! only where that is asked for; a limit then concerns the one service here that has the type of its own.

use super::{Dump, Import};
use crate::catalog::endpoint::INTERFACES;
use crate::documents::*;
use base::{Result, ServiceId};
use std::collections::BTreeMap;
use store::{Document, Query};

impl Import<'_> {
    pub(super) fn catalog(&mut self, dump: &Dump) -> Result<()> {
        dump.regions.iter().try_for_each(|region| self.put(region))?;
        dump.policies.iter().try_for_each(|policy| self.put(policy))?;
        for config in &dump.domain_configs {
            self.domain_config(config)?;
        }
        if dump.catalog {
            for service in &dump.services {
                match service.kind == "identity" {
                    // Clients would go on asking the old one.
                    true => self.left_out("service of the type identity, which this cloud is"),
                    false => self.put(service)?,
                }
            }
            dump.endpoints.iter().try_for_each(|endpoint| self.endpoint(endpoint))?;
        }
        self.services_here(dump)?;
        for of in &dump.policy_associations {
            let known = self.is_here::<PolicyText>(Some(&of.policy_id))?
                && self.is_here::<Endpoint>(of.endpoint_id.as_deref())?
                && self.is_here::<Service>(of.service_id.as_deref())?
                && self.is_here::<Region>(of.region_id.as_deref())?;
            match known {
                true => {
                    let of = of.clone().named();
                    self.put(&of)?;
                }
                false => self.left_out("policy_association with something that is not here"),
            }
        }
        dump.endpoint_groups.iter().try_for_each(|group| self.put(group))?;
        for filter in &dump.endpoint_filters {
            let known = self.is_here::<Project>(Some(&filter.project_id))?
                && self.is_here::<Endpoint>(filter.endpoint_id.as_deref())?
                && self.is_here::<EndpointGroup>(filter.endpoint_group_id.as_deref())?;
            match known {
                true => self.put(filter)?,
                false => self.left_out("endpoint_filter with something that is not here"),
            }
        }
        Ok(())
    }

    /// What a thing names is here, or it names nothing.
    fn is_here<T: Document>(&mut self, id: Option<&str>) -> Result<bool> {
        let Some(id) = id else { return Ok(true) };
        Ok(self.tx.get::<T>(id)?.is_some())
    }

    /// An endpoint without a scheme would lie below this cloud's own address.
    fn endpoint(&mut self, endpoint: &Endpoint) -> Result<()> {
        let leads = ["http://", "https://"].iter().any(|scheme| endpoint.url.starts_with(scheme));
        if !leads || !INTERFACES.contains(&endpoint.interface.as_str()) {
            self.left_out("endpoint without an http URL, or with an unknown interface");
            return Ok(());
        }
        if !self.is_here::<Service>(Some(&endpoint.service_id))? {
            self.left_out("endpoint of a service that is not here");
            return Ok(());
        }
        self.put(endpoint)
    }

    /// Which service here each of theirs is: by its id, else the only one of its type.
    fn services_here(&mut self, dump: &Dump) -> Result<()> {
        let mut by_kind: BTreeMap<String, Vec<ServiceId>> = BTreeMap::new();
        for here in self.tx.list::<Service>(Query::all())? {
            by_kind.entry(here.doc.kind).or_default().push(here.doc.id);
        }
        for service in &dump.services {
            let here = match by_kind.get(&service.kind).map(Vec::as_slice) {
                Some(of_kind) if of_kind.contains(&service.id) => &service.id,
                Some([only]) => only,
                _ => continue,
            };
            self.services.insert(service.id.to_string(), here.clone());
        }
        Ok(())
    }

    fn domain_config(&mut self, config: &DomainConfig) -> Result<()> {
        if !self.tx.get::<Project>(&config.id)?.is_some_and(|domain| domain.is_domain) {
            self.left_out("domain_config of a domain that is not here");
            return Ok(());
        }
        let mut kept = config.clone();
        for (group, options) in &mut kept.groups {
            let before = options.len();
            options.retain(|option, value| crate::domain::config::may_be_set(group, option, value));
            for _ in options.len()..before {
                self.left_out("option of a domain that is not known here");
            }
        }
        kept.groups.retain(|_, options| !options.is_empty());
        if kept.groups.is_empty() { Ok(()) } else { self.put(&kept) }
    }

    /// Where a resource has a limit here, that one stays.
    pub(super) fn limits(&mut self, dump: &Dump) -> Result<()> {
        for limit in &dump.registered_limits {
            if self.is_here::<RegisteredLimit>(Some(&limit.id))? {
                self.put(limit)?;
                continue;
            }
            let Some(service_id) = self.services.get(limit.service_id.as_str()).cloned() else {
                self.left_out("registered_limit of a service that is not here");
                continue;
            };
            if !self.is_here::<Region>(limit.region_id.as_deref())? {
                self.left_out("registered_limit of a region that is not here");
                continue;
            }
            let limit = RegisteredLimit { service_id, ..limit.clone() };
            let of = [limit.service_id.as_str(), limit.region_id.as_deref().unwrap_or(""), &limit.resource_name];
            let other = self.tx.get_unique::<RegisteredLimit>("resource", of)?;
            match other.is_some() {
                true => self.left_out("registered_limit of a resource that has another here"),
                false => self.put(&limit)?,
            }
        }
        let mut made = Vec::new();
        // Those of domains first: they are what those of projects are held against, also where a part ends in between.
        let (of_domains, of_projects): (Vec<_>, Vec<_>) = dump.limits.iter().partition(|limit| limit.domain_id.is_some());
        for limit in of_domains.into_iter().chain(of_projects) {
            if self.is_here::<Limit>(Some(&limit.id))? {
                self.put(limit)?;
                continue;
            }
            let Some(service_id) = self.services.get(limit.service_id.as_str()).cloned() else {
                self.left_out("limit of a service that is not here");
                continue;
            };
            let limit = Limit { service_id, ..limit.clone() };
            let (service, region) = (limit.service_id.as_str(), limit.region_id.as_deref().unwrap_or(""));
            let name = limit.resource_name.as_str();
            if self.tx.get_unique::<RegisteredLimit>("resource", [service, region, name])?.is_none() {
                self.left_out("limit of a resource without a registered limit");
                continue;
            }
            let (project, domain) = (limit.project_id.as_deref(), limit.domain_id.as_deref());
            if project.is_some() == domain.is_some() || !self.is_here::<Project>(project.or(domain))? {
                self.left_out("limit of a project that is not here");
                continue;
            }
            let of = [project.unwrap_or(""), domain.unwrap_or(""), service, region, name];
            let other = self.tx.get_unique::<Limit>("resource", of)?;
            if other.is_some() {
                self.left_out("limit of a project that has another here");
                continue;
            }
            let room = self.room;
            self.put(&limit)?;
            if self.room < room {
                made.push(limit);
            }
        }
        made.iter().try_for_each(|limit| self.model.check(self.tx, limit))
    }
}
