//! Pieces of text for the page: escaped, shortened, with units that people read.

use crate::verdict::Finding;
use std::fmt::{Display, Write};

/// Text as it may stand anywhere in a page, attributes included. Characters that have no shape, or that would turn
/// the reading order around, are spelled out.
pub fn esc(text: impl Display) -> String {
    let text = text.to_string();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
                out += &c.escape_unicode().to_string();
            }
            c if c.is_control() => out += &c.escape_default().to_string(),
            c => out.push(c),
        }
    }
    out
}

/// The text, or its beginning and an ellipsis, in at most `max` characters.
pub fn short(text: &str, max: usize) -> String {
    if text.chars().nth(max).is_none() {
        return text.to_owned();
    }
    text.chars()
        .take(max.saturating_sub(1))
        .chain(std::iter::once('…'))
        .collect()
}

/// A duration in the unit that fits it.
pub fn duration(ns: u64) -> String {
    let ms = ns as f64 / 1e6;
    match ns {
        0..1_000_000 => format!("{ms:.2} ms"),
        1_000_000..100_000_000 => format!("{ms:.1} ms"),
        100_000_000..1_000_000_000 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1e3),
    }
}

/// A moment of a run, in seconds with `digits` after the point.
pub fn seconds(ns: u64, digits: usize) -> String {
    format!("{:.digits$}", ns as f64 / 1e9)
}

/// A number with its thousands apart.
pub fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number and what it counts: `1 fault`, `2 faults`.
pub fn counted(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// The word for a finding, which is its CSS class too.
pub fn finding(finding: Finding) -> &'static str {
    match finding {
        Finding::Pass => "pass",
        Finding::Unknown => "unknown",
        Finding::Fail => "fail",
    }
}

/// A finding as a badge.
pub fn badge(of: Finding) -> String {
    let word = finding(of);
    format!("<span class=\"badge {word}\">{word}</span>")
}

/// A whole page. Its policy lets nothing run and nothing load, whatever the content is.
pub fn page(title: &str, body: &str) -> String {
    let mut out = String::with_capacity(body.len() + 16_384);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        esc(title),
        include_str!("style.css")
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_invisible_characters_lose_their_power() {
        assert_eq!(esc("<a b='c'>&\""), "&lt;a b=&#39;c&#39;&gt;&amp;&quot;");
        assert_eq!(esc("a\0\u{202e}b\nc"), "a\\u{0}\\u{202e}b\nc");
    }

    #[test]
    fn texts_are_cut_by_characters() {
        assert_eq!(short("äöü", 3), "äöü");
        assert_eq!(short("äöüß", 3), "äö…");
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(count),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [420_000, 12_340_000, 999_400_000, 12_345_000_000].map(duration),
            ["0.42 ms", "12.3 ms", "999 ms", "12.35 s"]
        );
        assert_eq!(
            [counted(1, "fault"), counted(2, "fault")],
            ["1 fault", "2 faults"]
        );
    }
}
