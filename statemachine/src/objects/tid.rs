//! The two numbers of the object database.

use crate::ids::Millis;
use crate::keys::Key;
use crate::store::Fault;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Which object. 0 is the root by custom.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid(pub u64);

/// Which transaction, and the serial of every object revision that it wrote. 0 is "before everything".
///
/// A tid is a ZODB time stamp: the high half counts minutes, `((((year - 1900) * 12 + month - 1) * 31 + day - 1) * 24 +
/// hour) * 60 + minute` in UTC, and the low half is the fraction of the minute in units of 60 s / 2^32.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(pub u64);

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;
/// The last day of tids, counted from 1970: in the year 5898, before the high half would reach its sign bit.
const DAY_MAX: u64 = 1_435_000;

impl Tid {
    /// No transaction: what is read of an object that does not exist.
    pub const NONE: Tid = Tid(0);
    /// After every transaction (the largest that ZODB compares as signed).
    pub const MAX: Tid = Tid(i64::MAX as u64);

    /// The tid of this moment. Moments after the last day count as the last day's.
    pub fn at(now: Millis) -> Tid {
        let minute = now.0 / MINUTE_MS;
        let fraction = ((now.0 % MINUTE_MS) << 32) / MINUTE_MS;
        let last_minute = DAY_MAX * DAY_MINUTES + DAY_MINUTES - 1;
        Tid(high(minute.min(last_minute)) << 32 | fraction)
    }

    /// The tid of a transaction at `now`, after one with this tid. `None` when the last day is over.
    pub fn following(self, now: Millis) -> Option<Tid> {
        let at = Tid::at(now);
        if now.0 / MINUTE_MS / DAY_MINUTES > DAY_MAX {
            return None;
        }
        if at > self {
            return Some(at);
        }
        let fraction = self.0 as u32;
        let (minute, fraction) = match fraction.checked_add(1) {
            Some(fraction) => (minute_of(self.0 >> 32), fraction),
            None => (minute_of(self.0 >> 32) + 1, 0),
        };
        let tid = Tid(high(minute) << 32 | u64::from(fraction));
        (minute / DAY_MINUTES <= DAY_MAX).then_some(tid)
    }

    /// The moment of this tid, rounded down to ms.
    pub fn time(self) -> Millis {
        let within = (u64::from(self.0 as u32) * MINUTE_MS) >> 32;
        Millis(minute_of(self.0 >> 32) * MINUTE_MS + within)
    }
}

/// The high half of a tid, of the minute counted from 1970.
fn high(minute: u64) -> u64 {
    let (year, month, day) = civil(minute / DAY_MINUTES);
    ((((year - 1900) * 12 + month - 1) * 31) + day - 1) * DAY_MINUTES + minute % DAY_MINUTES
}

/// The minute counted from 1970, of the high half of a tid. Before 1970 counts as 1970.
fn minute_of(high: u64) -> u64 {
    let (days, minute) = (high / DAY_MINUTES, high % DAY_MINUTES);
    let (months, day) = (days / 31, days % 31 + 1);
    days_since_1970(1900 + months / 12, months % 12 + 1, day) * DAY_MINUTES + minute
}

/// Days from 0000-03-01 to 1970-01-01. Years that begin in March keep the leap day last.
const EPOCH_DAYS: u64 = 719_468;
const ERA_DAYS: u64 = 146_097;

/// Year, month and day of the day counted from 1970, in the proleptic Gregorian calendar.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + EPOCH_DAYS;
    let (era, of_era) = (day / ERA_DAYS, day % ERA_DAYS);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (year + era * 400 + next, month, day)
}

fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * ERA_DAYS + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    days.saturating_sub(EPOCH_DAYS)
}

/// A text that is no oid or tid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an object id or tid: 1 to 16 hexadecimal digits")]
pub struct ParseIdError(String);

macro_rules! numbers {
    ($($name:ident),*) => {$(
        /// Sixteen hexadecimal digits, as the tools of ZODB write it.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let digits = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
                let value = u64::from_str_radix(text, 16).ok().filter(|_| digits);
                value.map($name).ok_or_else(|| ParseIdError(text.to_owned()))
            }
        }
        /// Text where people read, a number in the log.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    u64::deserialize(deserializer).map($name)
                }
            }
        }
        impl Key for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                self.0.encode(out);
            }
            fn decode(bytes: &mut &[u8]) -> Result<Self, Fault> {
                u64::decode(bytes).map($name)
            }
            fn text(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
numbers!(Oid, Tid);

/// A tid as a key that sorts the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Newest(pub Tid);

impl Key for Newest {
    fn encode(&self, out: &mut Vec<u8>) {
        (!self.0.0).encode(out);
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, Fault> {
        u64::decode(bytes).map(|tid| Newest(Tid(!tid)))
    }
    fn text(&self) -> String {
        self.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-01-02 03:04:05.500 UTC.
    const MOMENT: Millis = Millis(1_767_323_045_500);

    #[test]
    fn encodes_as_zodb_does() {
        assert_eq!(Tid::at(MOMENT).to_string(), "0405ed5817777777");
        // 1970-01-01, 2024-02-29 23:59:59.999 and 2000-12-31, by the formula.
        assert_eq!(Tid::at(Millis(0)).0 >> 32, 70 * 12 * 31 * 1440);
        let leap = Tid::at(Millis(1_709_251_199_999));
        assert_eq!(leap.0 >> 32, (((124 * 12 + 1) * 31 + 28) * 24 + 23) * 60 + 59);
        assert_eq!(leap.0 as u32, ((59_999u64 << 32) / 60_000) as u32);
        assert_eq!(
            Tid::at(Millis(978_220_800_000)).0 >> 32,
            ((100 * 12 + 11) * 31 + 30) * 1440
        );
    }

    #[test]
    fn the_last_unit_of_a_minute_is_followed_by_the_next_minute() {
        // 2023-02-28 23:59, which is followed by the first of March although the encoding has a 29th.
        let last = Tid(Tid::at(Millis(1_677_628_740_000)).0 | u64::from(u32::MAX));
        let next = last.following(Millis(0)).expect("years are left");
        assert_eq!(next, Tid::at(Millis(1_677_628_800_000)));
    }

    #[test]
    fn the_last_day_ends() {
        let over = Millis((DAY_MAX + 1) * DAY_MINUTES * MINUTE_MS);
        let last = Tid::NONE
            .following(Millis(over.0 - 1))
            .expect("it is the last one");
        assert!(last < Tid::MAX);
        assert_eq!(last.following(over), None);
        let unit = Tid(last.0 | u64::from(u32::MAX));
        assert_eq!(unit.following(Millis(0)), None, "the last unit is taken");
    }

    #[test]
    fn reads_what_it_writes() {
        assert_eq!("0405ed5817777777".parse(), Ok(Tid::at(MOMENT)));
        assert_eq!("2A".parse(), Ok(Oid(42)));
        for bad in ["", "+1", "0x1", "00000000000000001", "g"] {
            assert_eq!(bad.parse::<Oid>(), Err(ParseIdError(bad.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn time_returns_and_tids_grow(ms in 0u64..DAY_MAX * DAY_MINUTES * MINUTE_MS, back in 0u64..1 << 40) {
            let tid = Tid::at(Millis(ms));
            // The fraction was rounded down once in each direction.
            prop_assert!(Millis(ms).since(tid.time()) <= 1 && tid.time().0 <= ms);
            prop_assert!(Tid::at(Millis(ms + 1)) > tid);
            let next = tid.following(Millis(ms.saturating_sub(back))).expect("years are left");
            prop_assert!(next > tid);
            prop_assert!(next.0 - tid.0 == 1 || next.0 as u32 == 0);
        }

        #[test]
        fn any_tid_has_a_time(tid in any::<u64>()) {
            let _ = Tid(tid).time();
            let _ = Tid(tid).following(Millis(tid));
        }
    }
}
