//! Times as people read them.

use chrono::SecondsFormat;
use onward_api::wire::Time;

/// How long ago `time` was, in its largest unit: `45s`, `12m`, `3h`, `9d`. The future is `0s`.
pub(crate) fn age(time: Time, now: Time) -> String {
    span((now.0 - time.0).num_seconds())
}

fn span(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// `time` as RFC 3339 with milliseconds.
pub(crate) fn exact(time: Time) -> String {
    time.0.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_one_unit() {
        for (seconds, text) in [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7200, "2h"),
            (172_800, "2d"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
