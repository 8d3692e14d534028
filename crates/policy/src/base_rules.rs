//! The rules that every service builds on, with the names that OpenStack's services give them.

use crate::Rule;

macro_rules! base {
    ($($name:literal: $check:literal, $description:literal;)*) => {
        /// Reader, member, manager, admin and service, as OpenStack's consistent role-based access means them. A role
        /// that implies another stands in a token together with it, so that `role:reader` holds for a member, too.
        pub const BASE: &[Rule] = &[$(Rule { name: $name, check: $check, scope: &[], description: $description }),*];
    };
}

base! {
    "context_is_admin": "role:admin", "The administrator of the cloud.";
    "admin_required": "role:admin or is_admin:1", "The administrator of the cloud, as the identity service writes it.";
    "admin_api": "is_admin:True or role:admin", "The administrator of the cloud, as the compute service writes it.";
    "admin_only": "rule:context_is_admin", "The administrator of the cloud, as the network service writes it.";
    "service_api": "role:service", "Another service of the cloud.";
    "service_or_admin": "rule:service_api or rule:admin_api", "Another service, or the administrator.";
    "owner": "user_id:%(user_id)s", "The user that the object belongs to.";
    "project_api": "project_id:%(project_id)s", "Anyone in the project that the object belongs to.";
    "project_reader_api": "role:reader and project_id:%(project_id)s", "Who may read in the project.";
    "project_member_api": "role:member and project_id:%(project_id)s", "Who may make and change things in the project.";
    "project_manager_api": "role:manager and project_id:%(project_id)s", "Who manages the project.";
    "project_admin_api": "role:admin and project_id:%(project_id)s", "The administrator, scoped to the project.";
    "project_reader_or_admin": "rule:project_reader_api or rule:admin_api", "Who may read in the project, or the administrator.";
    "project_member_or_admin": "rule:project_member_api or rule:admin_api", "Who may change things in the project, or the administrator.";
    "project_manager_or_admin": "rule:project_manager_api or rule:admin_api", "Who manages the project, or the administrator.";
    "system_reader_api": "role:reader and system_scope:all", "Who may read the whole system.";
    "system_admin_api": "role:admin and system_scope:all", "Who may change the whole system.";
}
