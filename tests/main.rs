//! End to end: real processes, real peers, real signals; and the house rules as tests.

mod backup;
mod bad_input;
mod demo;
mod deployments;
mod divergence;
mod failover;
mod formats;
mod history;
mod machines;
mod members;
mod observability;
mod overload;
mod room;
mod schedule;
mod services;
mod site;
mod support;
mod tidy;
