//! What the fuzz targets and the test that replays their corpus share.

pub mod holds;
pub mod pieces;
