//! A hash over the whole state, for comparing replicas.

use crate::keys;
use crate::store::{Fault, Order, View};
use std::ops::ControlFlow;

/// Two CRC-32s side by side, one over the rows and one over the rows with their lengths, of everything but the journal
/// below its floor, which each node lets go of in its own time. It finds divergence, not forgery.
pub fn state_hash(view: &dyn View) -> Result<u64, Fault> {
    let floor = crate::system::gate(view)?.journal_floor;
    let (journal, journal_kept) = crate::journal::range_below(floor);
    let mut rows = crc32fast::Hasher::new();
    let mut framed = crc32fast::Hasher::new_with_initial(keys::SYSTEM.into());
    view.scan(&[], &[], Order::Ascending, &mut |key, value| {
        if key < journal.as_slice() || key >= journal_kept.as_slice() {
            framed.update(&(key.len() as u32).to_be_bytes());
            for part in [key, value] {
                rows.update(part);
                framed.update(part);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(u64::from(rows.finalize()) << 32 | u64::from(framed.finalize()))
}
