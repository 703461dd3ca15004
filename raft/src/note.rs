//! The small notes that a data directory holds for people and programs: lines of `name = value`.

/// The value of the first line of this name.
pub(crate) fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines()
        .find_map(|line| line.split_once(" = ").filter(|(key, _)| *key == name))
        .map(|(_, value)| value)
}
