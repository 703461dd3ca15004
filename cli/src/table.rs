//! Aligned columns without borders, as people read them and as `awk` splits them.
//!
//! Never lets a cell steer the terminal: control characters of a cell are shown escaped.

use unicode_width::UnicodeWidthStr;

/// What a cell says beyond its text; shown as a colour where colours are on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// On its way, or to be looked at.
    Fair,
    /// Not as it should be.
    Bad,
    /// Beside the point.
    Dim,
}

impl Tone {
    /// `text` in the colour of the tone.
    pub(crate) fn paint(self, text: &str, color: bool) -> String {
        let code = match self {
            _ if !color => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Fair => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// One cell. An empty one is shown as `-`, so that a row has as many words as there are columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with a tone.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "texts, numbers and references to either are handed over as they come"
    )]
    pub(crate) fn toned(text: impl ToString, tone: Tone) -> Self {
        Cell {
            text: printable(&text.to_string()),
            tone,
        }
    }

    /// The cell of a value that may be missing.
    pub(crate) fn maybe(value: Option<impl ToString>) -> Self {
        value.map_or_else(|| Cell::from(""), |value| Cell::toned(value, Tone::Plain))
    }

    fn shown(&self) -> &str {
        if self.text.is_empty() { "-" } else { &self.text }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell::toned(text, Tone::Plain)
    }
}

/// Rows under a heading.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    titles: Vec<&'static str>,
    /// Columns from here on are shown by `-o wide` only.
    narrow: usize,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns, and with those of `wide` after them when the output is wide.
    pub(crate) fn new(titles: &[&'static str], wide: &[&'static str]) -> Self {
        Table {
            titles: [titles, wide].concat(),
            narrow: titles.len(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with a cell for every column, the wide ones too.
    pub(crate) fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.titles.len(), "a cell for every column");
        self.rows.push(row);
    }

    /// The table as text: a line for the heading and one for each row.
    pub(crate) fn render(&self, wide: bool, color: bool) -> String {
        let columns = if wide { self.titles.len() } else { self.narrow };
        let title = |column: usize| self.titles[column].width();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].shown().width());
                cells.fold(title(column), usize::max)
            })
            .collect();
        let mut text = String::new();
        let heading: Vec<Cell> = self.titles.iter().map(|title| Cell::from(*title)).collect();
        for row in std::iter::once(&heading).chain(&self.rows) {
            line(&mut text, &row[..columns], &widths, color);
        }
        text
    }
}

fn line(text: &mut String, row: &[Cell], widths: &[usize], color: bool) {
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        text.push_str(&cell.tone.paint(cell.shown(), color));
        if column + 1 < row.len() {
            text.extend(std::iter::repeat_n(' ', width - cell.shown().width() + 3));
        }
    }
    text.push('\n');
}

/// One object as a list of its fields.
#[derive(Debug, Clone, Default)]
pub(crate) struct Details {
    fields: Vec<(&'static str, Cell)>,
}

impl Details {
    /// Adds a field.
    pub(crate) fn field(mut self, name: &'static str, value: impl Into<Cell>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// The fields as text, a line each.
    pub(crate) fn render(&self, color: bool) -> String {
        let width = self
            .fields
            .iter()
            .map(|(name, _)| name.width())
            .max()
            .unwrap_or(0);
        let mut text = String::new();
        for (name, cell) in &self.fields {
            text.push_str(&Tone::Dim.paint(name, color));
            text.extend(std::iter::repeat_n(' ', width - name.width() + 3));
            text.push_str(&cell.tone.paint(cell.shown(), color));
            text.push('\n');
        }
        text
    }
}

/// `text` with its control characters escaped.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machines() -> Table {
        let mut table = Table::new(&["SERIAL", "RACK", "STATE"], &["LABELS"]);
        table.push(vec![
            "r0-boot".into(),
            0.into(),
            Cell::toned("healthy", Tone::Good),
            "a=b".into(),
        ]);
        table.push(vec!["ラック1".into(), 12.into(), "retiring".into(), "".into()]);
        table
    }

    #[test]
    fn columns_line_up() {
        assert_eq!(
            machines().render(false, false),
            "SERIAL    RACK   STATE\n\
             r0-boot   0      healthy\n\
             ラック1   12     retiring\n"
        );
    }

    #[test]
    fn wide_adds_columns_and_shows_what_is_empty() {
        assert_eq!(
            machines().render(true, false),
            "SERIAL    RACK   STATE      LABELS\n\
             r0-boot   0      healthy    a=b\n\
             ラック1   12     retiring   -\n"
        );
    }

    #[test]
    fn colours_do_not_shift_columns() {
        let colored = machines().render(true, true);
        assert!(colored.contains("\x1b[32mhealthy\x1b[0m    a=b\n"), "{colored:?}");
    }

    #[test]
    fn a_cell_cannot_steer_the_terminal() {
        let mut table = Table::new(&["NAME"], &[]);
        table.push(vec!["a\x1b[2J\nb".into()]);
        assert_eq!(table.render(false, true), "NAME\na\\u{1b}[2J\\nb\n");
    }

    #[test]
    fn details_line_up() {
        let details = Details::default()
            .field("serial", "S1")
            .field("role", "")
            .field("rack", 3);
        assert_eq!(details.render(false), "serial   S1\nrole     -\nrack     3\n");
    }
}
