//! How much of request bodies is held while the rest of them is on its way.
//!
//! A body is bounded by its route, and so is the number of connections; all of them together would still be more than a
//! node has memory for. What counts are the bytes that came, and not those that were announced: whoever announces much and
//! sends nothing takes nothing from anybody.

use crate::problem::{OVERLOADED, Problem};
use onward_statemachine::ports::{Metric, Reading};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// The bytes of all bodies that are being received.
pub(crate) struct Receiving {
    bytes: AtomicUsize,
    max: usize,
    turned_away: AtomicU64,
}

/// What one body has of them, given back when it is dropped.
pub(crate) struct Held<'a> {
    of: &'a Receiving,
    bytes: usize,
}

impl Receiving {
    pub(crate) fn new(max: usize) -> Self {
        Receiving {
            bytes: AtomicUsize::new(0),
            max,
            turned_away: AtomicU64::new(0),
        }
    }

    /// The bodies that were turned away.
    pub(crate) fn metric(&self) -> Metric {
        Metric::new(
            "onward_http_bodies_overloaded_total",
            "Bodies turned away because too much was being received.",
            Reading::Counter(self.turned_away.load(Relaxed)),
        )
    }

    /// A body of which nothing came yet.
    pub(crate) fn none(&self) -> Held<'_> {
        Held { of: self, bytes: 0 }
    }
}

impl Held<'_> {
    /// Takes so many more bytes, or gives back all that it has and says no.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), Problem> {
        self.bytes += bytes;
        let before = self.of.bytes.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) <= self.of.max {
            return Ok(());
        }
        self.give_back();
        self.of.turned_away.fetch_add(1, Relaxed);
        Err(OVERLOADED.because(format!(
            "this node is receiving as many bodies as it takes at a time, {} bytes in all: send this again in a moment, or \
             to another node",
            self.of.max
        )))
    }

    fn give_back(&mut self) {
        self.of.bytes.fetch_sub(std::mem::take(&mut self.bytes), Relaxed);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}
