//! What servers and key pairs add up to in the ledger: the rows of projects, of their users, and of hosts.

use crate::Compute;
use crate::keypairs::KeyPair;
use crate::servers::Server;
use crate::{quota, servers};
use base::Result;
use contract::recount::{Counts, Recount, add};
use store::{Query, Reader};

impl Recount for Compute {
    fn name(&self) -> &'static str {
        "compute"
    }

    fn recount(&self, reader: &mut Reader) -> Result<Counts> {
        let mut counts = Counts::new();
        let servers = reader.list::<Server>(Query::all())?;
        for server in &servers {
            let member = quota::member_scope(&server.project_id, &server.user_id);
            // What is deleted softly uses no quota.
            let charged = server.soft_deleted.is_none();
            for scope in [quota::project_scope(&server.project_id), member].iter().filter(|_| charged) {
                for (resource, amount) in quota::server_resources(&server.flavor, 1) {
                    add(&mut counts, scope, resource, amount);
                }
            }
        }
        servers::recount_hosts(reader, &servers, &mut counts)?;
        // The disks of guests in the trash, and of those that are on their way out of it.
        servers::recount_trash(reader, &mut counts)?;
        for pair in reader.list::<KeyPair>(Query::all())? {
            add(&mut counts, &quota::user_scope(&pair.user_id), "key_pairs", 1);
        }
        Ok(counts)
    }
}
