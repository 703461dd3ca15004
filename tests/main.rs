//! End to end: real processes, real peers, real signals; and the house rules as tests.

mod bad_input;
mod failover;
mod services;
mod support;
mod tidy;
