//! Rolls machines onto hardware. Here: what a machine is told over HTTP when it boots.
//!
//! Firmware or iPXE asks `GET /boot/v1/...` (see [`router`]); the answer is a boot template of the log, rendered with the
//! machine's record. Every node answers from its own replica, so machines boot while there is no leader.
//!
//! Never writes anything, keeps nothing between requests, and knows no machine that is not registered.
//!
//! Limits: [`FUEL`] steps and [`OUTPUT_BYTES_MAX`] bytes for each document.

mod http;
mod render;

pub use http::{REVISION_HEADER, router};
pub use render::{FUEL, OUTPUT_BYTES_MAX, Source, TemplateError, VARIABLES, check_template, render};
