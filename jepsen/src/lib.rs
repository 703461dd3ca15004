//! Fault testing: a cluster of real processes, faults that are planned from a seed, clients that write down what they
//! asked and what they were told, and checkers that judge it afterwards.

pub mod checker;
pub mod claims;
pub mod client;
pub mod cluster;
pub mod disk;
pub mod final_state;
pub mod history;
pub mod judge;
pub mod matrix;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod nemesis;
pub mod net;
pub mod print;
pub mod report;
pub mod run;
#[cfg(feature = "simulation")]
pub mod sim;
pub mod verdict;
pub mod workload;
