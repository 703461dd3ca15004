//! `onward-jepsen`: runs a workload under faults and judges what came of it.

fn main() {}
