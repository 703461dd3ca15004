//! Fault testing: a cluster of real processes, faults that are planned from a seed, clients that write down what they
//! asked and what they were told, and checkers that judge it afterwards.

pub mod history;
pub mod verdict;
