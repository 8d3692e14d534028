//! Metadata definitions: what the properties of images, flavors, volumes and aggregates mean, for people and their
//! user interfaces.
//!
//! A namespace is one document with all that it defines: resource types that it is meant for, properties, objects
//! (groups of properties) and tags. Nothing here holds any other resource to a definition. Rules: a namespace that a
//! caller may not see does not exist for it (404); of a protected one nothing is deleted; the usual catalogs are
//! written once, and what an administrator deletes of them stays deleted.

mod catalog;
mod document;
mod namespaces;
mod parts;
mod property;
pub mod schemas;
mod tags;

pub use catalog::bootstrap;
pub use document::{Namespace, ResourceType};

use crate::Service;
use rest::{Access, Method as M, Route};
use std::sync::Arc;

/// The routes.
pub fn routes(service: &Arc<Service>) -> Vec<Route> {
    use Access::Rule;
    macro_rules! table {
        ($($method:expr, $path:literal, $operation:literal, $rule:literal, $success:literal, $handler:path;)*) => {
            vec![$(Route::new(
                service, $method, $path, $operation, Rule($rule), $success, $handler,
            )),*]
        };
    }
    table! {
        M::GET, "/v2/schemas/metadefs/namespace", "schemas:metadef_namespace", "get_images", 200, schemas::show;
        M::GET, "/v2/schemas/metadefs/namespaces", "schemas:metadef_namespaces", "get_images", 200, schemas::show;
        M::GET, "/v2/schemas/metadefs/resource_type", "schemas:metadef_resource_type", "get_images", 200, schemas::show;
        M::GET, "/v2/schemas/metadefs/resource_types", "schemas:metadef_resource_types", "get_images", 200, schemas::show;
        M::GET, "/v2/schemas/metadefs/property", "schemas:metadef_property", "get_images", 200, schemas::show;
        M::GET, "/v2/schemas/metadefs/properties", "schemas:metadef_properties", "get_images", 200, schemas::show;
        M::GET, "/v2/schemas/metadefs/object", "schemas:metadef_object", "get_images", 200, schemas::show;
        M::GET, "/v2/schemas/metadefs/objects", "schemas:metadef_objects", "get_images", 200, schemas::show;
        M::GET, "/v2/schemas/metadefs/tag", "schemas:metadef_tag", "get_images", 200, schemas::show;
        M::GET, "/v2/schemas/metadefs/tags", "schemas:metadef_tags", "get_images", 200, schemas::show;
        M::GET, "/v2/metadefs/resource_types", "metadef_resource_types:list", "list_metadef_resource_types", 200, parts::list_types;
        M::GET, "/v2/metadefs/namespaces", "metadef_namespaces:list", "get_metadef_namespaces", 200, namespaces::list;
        M::POST, "/v2/metadefs/namespaces", "metadef_namespaces:create", "add_metadef_namespace", 201, namespaces::create;
        M::GET, "/v2/metadefs/namespaces/{namespace_name}", "metadef_namespaces:show", "get_metadef_namespace", 200, namespaces::show;
        M::PUT, "/v2/metadefs/namespaces/{namespace_name}", "metadef_namespaces:update", "modify_metadef_namespace", 200, namespaces::update;
        M::DELETE, "/v2/metadefs/namespaces/{namespace_name}", "metadef_namespaces:delete", "delete_metadef_namespace", 204, namespaces::delete;
        M::GET, "/v2/metadefs/namespaces/{namespace_name}/resource_types", "metadef_associations:list", "list_metadef_resource_types", 200, parts::list_associations;
        M::POST, "/v2/metadefs/namespaces/{namespace_name}/resource_types", "metadef_associations:create", "add_metadef_resource_type_association", 201, parts::create_association;
        M::DELETE, "/v2/metadefs/namespaces/{namespace_name}/resource_types/{resource_type}", "metadef_associations:delete", "remove_metadef_resource_type_association", 204, parts::delete_association;
        M::GET, "/v2/metadefs/namespaces/{namespace_name}/objects", "metadef_objects:list", "get_metadef_objects", 200, parts::list_objects;
        M::POST, "/v2/metadefs/namespaces/{namespace_name}/objects", "metadef_objects:create", "add_metadef_object", 201, parts::create_object;
        M::DELETE, "/v2/metadefs/namespaces/{namespace_name}/objects", "metadef_objects:delete_all", "delete_metadef_namespace", 204, parts::delete_objects;
        M::GET, "/v2/metadefs/namespaces/{namespace_name}/objects/{object_name}", "metadef_objects:show", "get_metadef_object", 200, parts::show_object;
        M::PUT, "/v2/metadefs/namespaces/{namespace_name}/objects/{object_name}", "metadef_objects:update", "modify_metadef_object", 200, parts::update_object;
        M::DELETE, "/v2/metadefs/namespaces/{namespace_name}/objects/{object_name}", "metadef_objects:delete", "delete_metadef_object", 204, parts::delete_object;
        M::GET, "/v2/metadefs/namespaces/{namespace_name}/properties", "metadef_properties:list", "get_metadef_properties", 200, parts::list_properties;
        M::POST, "/v2/metadefs/namespaces/{namespace_name}/properties", "metadef_properties:create", "add_metadef_property", 201, parts::create_property;
        M::DELETE, "/v2/metadefs/namespaces/{namespace_name}/properties", "metadef_properties:delete_all", "delete_metadef_namespace", 204, parts::delete_properties;
        M::GET, "/v2/metadefs/namespaces/{namespace_name}/properties/{property_name}", "metadef_properties:show", "get_metadef_property", 200, parts::show_property;
        M::PUT, "/v2/metadefs/namespaces/{namespace_name}/properties/{property_name}", "metadef_properties:update", "modify_metadef_property", 200, parts::update_property;
        M::DELETE, "/v2/metadefs/namespaces/{namespace_name}/properties/{property_name}", "metadef_properties:delete", "remove_metadef_property", 204, parts::delete_property;
        M::GET, "/v2/metadefs/namespaces/{namespace_name}/tags", "metadef_tags:list", "get_metadef_tags", 200, tags::list;
        M::POST, "/v2/metadefs/namespaces/{namespace_name}/tags", "metadef_tags:create_all", "add_metadef_tags", 201, tags::create_all;
        M::DELETE, "/v2/metadefs/namespaces/{namespace_name}/tags", "metadef_tags:delete_all", "delete_metadef_tags", 204, tags::delete_all;
        M::GET, "/v2/metadefs/namespaces/{namespace_name}/tags/{tag_name}", "metadef_tags:show", "get_metadef_tag", 200, tags::show;
        M::POST, "/v2/metadefs/namespaces/{namespace_name}/tags/{tag_name}", "metadef_tags:create", "add_metadef_tag", 201, tags::create;
        M::PUT, "/v2/metadefs/namespaces/{namespace_name}/tags/{tag_name}", "metadef_tags:update", "modify_metadef_tag", 200, tags::update;
        M::DELETE, "/v2/metadefs/namespaces/{namespace_name}/tags/{tag_name}", "metadef_tags:delete", "delete_metadef_tag", 204, tags::delete;
    }
}
