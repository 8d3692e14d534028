//! Who may do what, unless a `policy.yaml` says otherwise: Cinder's names and defaults.

use policy::{Rule, Scope};

const PROJECT: &[Scope] = &[Scope::Project];
const READER: &str = "rule:project_reader_or_admin";
const MEMBER: &str = "rule:project_member_or_admin";
const ADMIN: &str = "rule:admin_api";
/// Anybody with a token.
const ANY: &str = "@";

macro_rules! rules {
    ($($name:literal: $check:expr, $description:literal;)*) => {
        pub const RULES: &[Rule] = &[$(Rule::new($name, $check, PROJECT, $description)),*];
    };
}

rules! {
    "volume:create": MEMBER, "Create a volume.";
    "volume:create_from_image": MEMBER, "Create a volume from an image.";
    "volume:get": READER, "Show a volume.";
    "volume:get_all": READER, "List volumes.";
    "volume:update": MEMBER, "Change a volume.";
    "volume:delete": MEMBER, "Delete a volume.";
    "volume:force_delete": ADMIN, "Delete a volume in any state.";
    "volume:retype": MEMBER, "Change the type of a volume.";
    "volume:extend": MEMBER, "Extend a volume.";
    "volume:flatten": MEMBER, "Make a volume stand on nothing but itself.";
    "volume:extend_attached_volume": MEMBER, "Extend a volume in use.";
    "volume:get_volume_metadata": READER, "Show a volume's metadata.";
    "volume:create_volume_metadata": MEMBER, "Add to a volume's metadata.";
    "volume:update_volume_metadata": MEMBER, "Change a volume's metadata.";
    "volume:delete_volume_metadata": MEMBER, "Delete a volume's metadata.";
    "volume_extension:volume_host_attribute": ADMIN, "See a volume's host.";
    "volume_extension:volume_tenant_attribute": READER, "See a volume's project.";
    "volume_extension:volume_mig_status_attribute": ADMIN, "See a volume's migration.";
    "volume_extension:volume_actions:action": MEMBER, "Do something to a volume.";
    "volume_extension:volume_actions:attach": MEMBER, "Say that a volume is attached.";
    "volume_extension:volume_actions:detach": MEMBER, "Say that a volume is detached.";
    "volume_extension:volume_actions:reserve": MEMBER, "Reserve a volume.";
    "volume_extension:volume_actions:unreserve": MEMBER, "End a reservation.";
    "volume_extension:volume_actions:begin_detaching": MEMBER, "Begin to detach a volume.";
    "volume_extension:volume_actions:roll_detaching": MEMBER, "Do not detach a volume after all.";
    "volume_extension:volume_actions:initialize_connection": MEMBER, "Ask how a volume is reached.";
    "volume_extension:volume_actions:terminate_connection": MEMBER, "Give up a connection.";
    "volume_extension:volume_actions:upload_image": MEMBER, "Make an image of a volume.";
    "volume_extension:volume_actions:upload_public": ADMIN, "Make a public image of a volume.";
    "volume_extension:volume_image_metadata:set": MEMBER, "Set what a volume keeps of its image.";
    "volume_extension:volume_image_metadata:show": READER, "See what a volume keeps of its image.";
    "volume_extension:volume_image_metadata:remove": MEMBER, "Remove what a volume keeps of its image.";
    "volume_extension:volume_admin_actions:reset_status": ADMIN, "Say what a volume is.";
    "volume_extension:volume_admin_actions:force_delete": ADMIN, "Delete a volume in any state.";
    "volume_extension:volume_admin_actions:force_detach": ADMIN, "Detach a volume by force.";
    "volume:get_snapshot": READER, "Show a snapshot.";
    "volume:get_all_snapshots": READER, "List snapshots.";
    "volume:create_snapshot": MEMBER, "Create a snapshot.";
    "volume:update_snapshot": MEMBER, "Change a snapshot.";
    "volume:delete_snapshot": MEMBER, "Delete a snapshot.";
    "volume:get_snapshot_metadata": READER, "Show a snapshot's metadata.";
    "volume:update_snapshot_metadata": MEMBER, "Change a snapshot's metadata.";
    "volume:delete_snapshot_metadata": MEMBER, "Delete a snapshot's metadata.";
    "snapshot_extension:snapshot_actions:update_snapshot_status": MEMBER, "Do something to a snapshot.";
    "volume_extension:snapshot_admin_actions:reset_status": ADMIN, "Say what a snapshot is.";
    "volume_extension:snapshot_admin_actions:force_delete": ADMIN, "Delete a snapshot in any state.";
    "volume:attachment_create": MEMBER, "Create an attachment.";
    "volume:attachment_update": MEMBER, "Update an attachment.";
    "volume:attachment_delete": MEMBER, "Delete an attachment.";
    "volume:attachment_complete": MEMBER, "Complete an attachment.";
    "volume:multiattach_bootable_volume": MEMBER, "Attach a bootable volume twice.";
    "volume:get_all_transfers": READER, "List transfers.";
    "volume:get_transfer": READER, "Show a transfer.";
    "volume:create_transfer": MEMBER, "Offer a volume to another project.";
    "volume:accept_transfer": MEMBER, "Accept a volume of another project.";
    "volume:delete_transfer": MEMBER, "Take an offer back.";
    "volume_extension:type_get": ANY, "Show a type.";
    "volume_extension:type_get_all": ANY, "List types.";
    "volume_extension:type_create": ADMIN, "Create a type.";
    "volume_extension:type_update": ADMIN, "Change a type.";
    "volume_extension:type_delete": ADMIN, "Delete a type.";
    "volume_extension:access_types_extra_specs": ADMIN, "See the extra specs of a type.";
    "volume_extension:access_types_qos_specs_id": ADMIN, "See the QoS specs of a type.";
    "volume_extension:volume_type_access": ANY, "See whether a type is public.";
    "volume_extension:volume_type_access:addProjectAccess": ADMIN, "Let a project use a type.";
    "volume_extension:volume_type_access:removeProjectAccess": ADMIN, "Let a project no longer use a type.";
    "volume_extension:volume_type_access:get_all_for_type": ADMIN, "List the projects that may use a type.";
    "volume_extension:types_extra_specs:index": READER, "List the extra specs of a type.";
    "volume_extension:types_extra_specs:show": READER, "Show an extra spec of a type.";
    "volume_extension:types_extra_specs:create": ADMIN, "Create extra specs of a type.";
    "volume_extension:types_extra_specs:update": ADMIN, "Change an extra spec of a type.";
    "volume_extension:types_extra_specs:delete": ADMIN, "Delete an extra spec of a type.";
    "volume_extension:volume_type_encryption:get": ADMIN, "Show the encryption of a type.";
    "volume_extension:qos_specs_manage:get_all": ADMIN, "List QoS specs.";
    "volume_extension:qos_specs_manage:get": ADMIN, "Show QoS specs.";
    "volume_extension:qos_specs_manage:create": ADMIN, "Create QoS specs.";
    "volume_extension:qos_specs_manage:update": ADMIN, "Change QoS specs.";
    "volume_extension:qos_specs_manage:delete": ADMIN, "Delete QoS specs.";
    "volume_extension:quotas:show": READER, "Show a quota set.";
    "volume_extension:quotas:update": ADMIN, "Change a quota set.";
    "volume_extension:quotas:delete": ADMIN, "Delete a quota set.";
    "volume_extension:quota_classes:get": ADMIN, "Show a quota class.";
    "volume_extension:quota_classes:update": ADMIN, "Change a quota class.";
    "limits_extension:used_limits": READER, "Show limits.";
    "volume:availability_zone_list": ANY, "List zones.";
    "volume_extension:services:index": ADMIN, "List services.";
    "volume_extension:services:update": ADMIN, "Change a service.";
    "volume_extension:hosts": ADMIN, "List hosts.";
    "volume_extension:capabilities": ADMIN, "Show what a back-end can do.";
    "scheduler_extension:scheduler_stats:get_pools": ADMIN, "List pools.";
    "message:get": READER, "Show a message.";
    "message:get_all": READER, "List messages.";
    "message:delete": MEMBER, "Delete a message.";
    "volume_extension:list_extensions": ANY, "List extensions.";
}
