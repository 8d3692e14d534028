//! Pure plans: from the world to what each namespace shall hold. No I/O; tested by tables and goldens.

pub mod flows;
pub mod groups;
pub mod network;
pub mod router;
pub mod underlay;

#[cfg(test)]
mod tests;
