//! End to end: real processes, real peers, real signals; and the house rules as tests.

mod bad_input;
mod failover;
mod support;
mod tidy;
