//! What the documents of this service add up to in the ledger.

use crate::Network;
use crate::floatingips::FloatingIp;
use crate::ports::Port;
use crate::routers::Router;
use crate::security_groups::{SecurityGroup, SecurityGroupRule};
use crate::standard::Look;
use crate::{networks, subnets};
use base::Result;
use contract::recount::{Counts, Recount, add};
use store::{Query, Reader};

impl Recount for Network {
    fn name(&self) -> &'static str {
        "network"
    }

    fn recount(&self, reader: &mut Reader) -> Result<Counts> {
        let mut counts = Counts::new();
        let mut one = |project: &str, resource: &str| add(&mut counts, project, resource, 1);
        for network in reader.docs::<networks::Network>(Query::all())? {
            one(&network.project_id, "network");
        }
        for subnet in reader.docs::<subnets::Subnet>(Query::all())? {
            one(&subnet.project_id, "subnet");
        }
        // What the service makes for itself is charged to nobody.
        for port in reader.docs::<Port>(Query::all())?.iter().filter(|port| port.charged) {
            one(&port.project_id, "port");
        }
        for router in reader.docs::<Router>(Query::all())? {
            one(&router.project_id, "router");
        }
        for floating in reader.docs::<FloatingIp>(Query::all())? {
            one(&floating.project_id, "floatingip");
        }
        for group in reader.docs::<SecurityGroup>(Query::all())?.iter().filter(|group| !group.is_default) {
            one(&group.project_id, "security_group");
        }
        for rule in reader.docs::<SecurityGroupRule>(Query::all())?.iter().filter(|rule| rule.charged) {
            one(&rule.project_id, "security_group_rule");
        }
        Ok(counts)
    }
}
