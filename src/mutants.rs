//! Plants the bug that `ONWARD_MUTANT` names into this process (docs/jepsen.md).

use anyhow::Context;
use onward_statemachine::Millis;
use onward_statemachine::mutant::{self, Mutant};
use std::time::{SystemTime, UNIX_EPOCH};

/// Plants it, if there is one.
pub fn plant() -> anyhow::Result<()> {
    let Ok(name) = std::env::var("ONWARD_MUTANT") else {
        return Ok(());
    };
    let mutant = Mutant::named(&name).with_context(|| format!("ONWARD_MUTANT: there is no bug `{name}`"))?;
    mutant::plant(mutant, wall_clock);
    tracing::warn!(
        mutant = name,
        "a bug is planted: this node does not keep its promises"
    );
    Ok(())
}

fn wall_clock() -> Millis {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(since_1970.as_millis() as u64)
}
