//! Services: which names resolve to what, and the small settings that programs share.

pub mod catalog;
pub mod kv;
