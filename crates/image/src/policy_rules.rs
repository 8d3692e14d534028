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
}
