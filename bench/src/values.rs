//! What is written: values that differ from each other and do not compress, and keys that fall anywhere among each other.

use bytes::Bytes;

/// Values are windows into so many bytes more than one is long.
const SPREAD: usize = 1 << 20;
/// 2^64 divided by the golden ratio, made odd: multiplying by it is one-to-one, and spreads neighbours.
const SPREADER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Values of one size. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct Values {
    letters: Bytes,
    size: usize,
}

impl Values {
    /// Values of `size` bytes.
    pub fn new(size: usize) -> Self {
        let mut state = SPREADER;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            // Letters, so that every protocol may carry it as text.
            b'a' + ((state >> 33) % 26) as u8
        };
        let letters = (0..SPREAD + size).map(|_| next()).collect();
        Values { letters, size }
    }

    /// One of them, the same for the same number.
    pub fn of(&self, number: u64) -> Bytes {
        let start = (spread(number) >> 32) as usize % SPREAD;
        self.letters.slice(start..start + self.size)
    }
}

/// Another number for each, far from those of its neighbours.
pub fn spread(number: u64) -> u64 {
    number.wrapping_mul(SPREADER)
}

/// The key of a stored pair: keys with numbers in a row fall anywhere among all.
pub fn stored_key(number: u64) -> String {
    format!("stored-{:016x}", spread(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn values_have_their_size_and_differ() {
        let values = Values::new(100);
        let some: BTreeSet<Bytes> = (0..1000).map(|number| values.of(number)).collect();
        assert!(some.iter().all(|value| value.len() == 100));
        assert!(some.len() > 990, "{} of 1000 differ", some.len());
        assert_eq!(values.of(7), Values::new(100).of(7));
    }

    #[test]
    fn keys_differ_and_do_not_come_in_order() {
        let keys: Vec<String> = (0..1000).map(stored_key).collect();
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 1000);
        let rising = keys.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((300..700).contains(&rising), "{rising} of 999 steps go up");
    }
}
