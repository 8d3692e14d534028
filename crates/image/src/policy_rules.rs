//! Who may do what with images: Glance's rules with its new defaults, under its names.
//!
//! Whether an image can be seen at all (public, community, own, shared with the project) is decided before any rule,
//! by [`crate::images::visible`], as Glance decides it in its database layer. All rules take tokens of project scope
//! alone.

use policy::{Rule, Scope};

macro_rules! rules {
    ($($name:literal: $check:expr, $description:literal;)*) => {
        pub const RULES: &[Rule] = &[$(Rule::new($name, $check, &[Scope::Project], $description)),*];
    };
}

const ADMIN: &str = "rule:context_is_admin";
const MEMBER: &str = "rule:context_is_admin or (role:member and project_id:%(project_id)s)";
const READER: &str = "rule:context_is_admin or (role:reader and project_id:%(project_id)s)";
const SEEN_BY_READER: &str = "rule:context_is_admin or (role:reader and (project_id:%(project_id)s or \
    project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s))";
const SEEN_BY_MEMBER: &str = "rule:context_is_admin or (role:member and (project_id:%(project_id)s or \
    project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s))";
const READER_OR_SHARED: &str =
    "rule:context_is_admin or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s))";
const SHARED_MEMBER: &str = "rule:context_is_admin or (role:member and project_id:%(member_id)s)";
const SEEN_NAMESPACE: &str =
    "rule:context_is_admin or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))";
const METADEF_ADMIN: &str = "rule:metadef_admin";

rules! {
    "add_image": "rule:context_is_admin or (role:member and project_id:%(project_id)s and project_id:%(owner)s)", "Create an image.";
    "delete_image": MEMBER, "Delete an image.";
    "get_image": SEEN_BY_READER, "Show an image.";
    "get_images": READER, "List images.";
    "modify_image": MEMBER, "Change an image, its properties and its tags.";
    "publicize_image": ADMIN, "Make an image public.";
    "communitize_image": MEMBER, "Make an image a community image.";
    "download_image": SEEN_BY_MEMBER, "Download the bytes of an image.";
    "upload_image": MEMBER, "Upload or stage the bytes of an image.";
    "add_member": MEMBER, "Share an image with a project.";
    "delete_member": MEMBER, "Stop sharing an image with a project.";
    "get_member": READER_OR_SHARED, "Show a project that an image is shared with.";
    "get_members": READER_OR_SHARED, "List the projects that an image is shared with.";
    "modify_member": SHARED_MEMBER, "Accept or reject an image that is shared with the own project.";
    "deactivate": MEMBER, "Deactivate an image, so that its bytes cannot be used.";
    "reactivate": MEMBER, "Reactivate an image.";
    "add_image_location": "rule:service_api or rule:context_is_admin or (role:member and project_id:%(project_id)s and project_id:%(owner)s)", "Say where the bytes of an image lie.";
    "fetch_image_location": "rule:service_api or rule:context_is_admin", "Read where the bytes of an image came from.";
    "copy_image": ADMIN, "Copy the bytes of an image to other stores.";
    "delete_image_location": ADMIN, "Remove the copy of an image from a store.";
    "stores_info_detail": "rule:service_api or rule:context_is_admin", "List stores with their properties.";
    "tasks_api_access": ADMIN, "Use the calls for tasks at all.";
    "get_task": "", "Show a task.";
    "get_tasks": "", "List tasks.";
    "add_task": "", "Create a task.";
    "modify_task": "", "Change or delete a task.";
    "cache_image": ADMIN, "Queue an image for the cache.";
    "cache_list": ADMIN, "List cached images.";
    "cache_delete": ADMIN, "Remove images from the cache.";
    "cache_clean": ADMIN, "Clean the cache.";
    "cache_prune": ADMIN, "Prune the cache.";
    "list_cached_nodes": ADMIN, "List the nodes that cached an image.";
    "metadef_default": "", "What everybody may do with metadata definitions.";
    "metadef_admin": ADMIN, "What administrators may do with metadata definitions.";
    "get_metadef_namespace": SEEN_NAMESPACE, "Show a namespace of metadata definitions.";
    "get_metadef_namespaces": READER, "List namespaces of metadata definitions.";
    "add_metadef_namespace": METADEF_ADMIN, "Create a namespace of metadata definitions.";
    "modify_metadef_namespace": METADEF_ADMIN, "Change a namespace of metadata definitions.";
    "delete_metadef_namespace": METADEF_ADMIN, "Delete a namespace of metadata definitions, or all its objects, properties or tags.";
    "get_metadef_object": SEEN_NAMESPACE, "Show an object of a namespace.";
    "get_metadef_objects": SEEN_NAMESPACE, "List the objects of a namespace.";
    "add_metadef_object": METADEF_ADMIN, "Create an object in a namespace.";
    "modify_metadef_object": METADEF_ADMIN, "Change an object of a namespace.";
    "delete_metadef_object": METADEF_ADMIN, "Delete an object of a namespace.";
    "list_metadef_resource_types": SEEN_NAMESPACE, "List resource types, and those a namespace is meant for.";
    "get_metadef_resource_type": SEEN_NAMESPACE, "Show a resource type that a namespace is meant for.";
    "add_metadef_resource_type_association": METADEF_ADMIN, "Say that a namespace is meant for a resource type.";
    "remove_metadef_resource_type_association": METADEF_ADMIN, "Say no longer that a namespace is meant for a resource type.";
    "get_metadef_property": SEEN_NAMESPACE, "Show a property of a namespace.";
    "get_metadef_properties": SEEN_NAMESPACE, "List the properties of a namespace.";
    "add_metadef_property": METADEF_ADMIN, "Create a property in a namespace.";
    "modify_metadef_property": METADEF_ADMIN, "Change a property of a namespace.";
    "remove_metadef_property": METADEF_ADMIN, "Delete a property of a namespace.";
    "get_metadef_tag": SEEN_NAMESPACE, "Show a tag of a namespace.";
    "get_metadef_tags": SEEN_NAMESPACE, "List the tags of a namespace.";
    "add_metadef_tag": METADEF_ADMIN, "Create a tag in a namespace.";
    "add_metadef_tags": METADEF_ADMIN, "Create several tags in a namespace.";
    "modify_metadef_tag": METADEF_ADMIN, "Rename a tag of a namespace.";
    "delete_metadef_tag": METADEF_ADMIN, "Delete a tag of a namespace.";
    "delete_metadef_tags": METADEF_ADMIN, "Delete all tags of a namespace.";
}
