//! Plots as SVG: panels side by side, with lines that carry their names at their ends. Plain enough to be read as text.
//!
//! An image has no background of its page, so it brings its own, light or dark as its viewer prefers.

use std::fmt::Write;

const PLOT_WIDTH: f64 = 290.0;
const PLOT_HEIGHT: f64 = 210.0;
/// Around each plot: for the numbers at the left, its title, the names of the lines, the numbers and the label below.
const LEFT: f64 = 58.0;
const TOP: f64 = 30.0;
const RIGHT: f64 = 88.0;
const BOTTOM: f64 = 52.0;
/// Above all panels: the title of the figure.
const HEAD: f64 = 34.0;
/// Names at the ends of lines are no closer than this.
const NAME_HEIGHT: f64 = 15.0;
/// About so many numbers stand at an axis.
const TICKS: f64 = 5.0;

const STYLE: &str = "
text{font:13px system-ui,'DejaVu Sans',sans-serif;fill:#1f2328}
.title{font-weight:600;font-size:15px}
.paper{fill:#ffffff}
.grid{stroke:#d8dee4;stroke-width:1}
.axis{stroke:#59636e;stroke-width:1}
.line{fill:none;stroke-width:2.2;stroke-linejoin:round}
.dashed{stroke-dasharray:5 4}
.a{stroke:#0969da}.dot.a,text.a{fill:#0969da;stroke:none}
.b{stroke:#bc4c00}.dot.b,text.b{fill:#bc4c00;stroke:none}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}
.paper{fill:#0d1117}
.grid{stroke:#30363d}
.axis{stroke:#9198a1}
.a{stroke:#6cb6ff}.dot.a,text.a{fill:#6cb6ff}
.b{stroke:#ffa657}.dot.b,text.b{fill:#ffa657}
}
";

/// How values are spread over an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Equal steps are as far from each other; it begins at 0.
    Linear,
    /// Equal factors are as far from each other.
    Log,
}

/// A line's color; each system has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// The first.
    A,
    /// The second.
    B,
}

impl Ink {
    fn class(self) -> &'static str {
        match self {
            Ink::A => "a",
            Ink::B => "b",
        }
    }
}

/// What one line shows.
#[derive(Debug, Clone)]
pub struct Line {
    /// Stands at its end.
    pub name: String,
    /// Its color.
    pub ink: Ink,
    /// Whether it is broken.
    pub dashed: bool,
    /// In order of x.
    pub points: Vec<(f64, f64)>,
}

/// One plot.
#[derive(Debug, Clone)]
pub struct Panel {
    /// What its y axis counts, with the unit.
    pub title: String,
    /// How that is spread.
    pub spread: Spread,
    /// What is shown.
    pub lines: Vec<Line>,
}

/// Plots over the same x.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Says what is shown.
    pub title: String,
    /// What the x axis counts, with the unit.
    pub x_label: String,
    /// How that is spread.
    pub x_spread: Spread,
    /// What stands at the x axis, and where.
    pub x_ticks: Vec<(f64, String)>,
    /// Side by side.
    pub panels: Vec<Panel>,
}

/// From values to places along an axis of `length`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    spread: Spread,
    from: f64,
    to: f64,
    length: f64,
}

impl Scale {
    /// An axis that holds all these values, from a round number to a round number.
    fn around(spread: Spread, values: impl Iterator<Item = f64>, length: f64) -> Scale {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            (least, most) = (least.min(value), most.max(value));
        }
        if most <= 0.0 {
            (least, most) = (1.0, 1.0);
        }
        let (from, to) = match spread {
            Spread::Linear => {
                let step = round_step(most / TICKS);
                (0.0, (most / step).ceil() * step)
            }
            Spread::Log => {
                let from = 10_f64.powf(least.log10().floor());
                (from, 10_f64.powf(most.log10().ceil()).max(from * 10.0))
            }
        };
        Scale {
            spread,
            from,
            to,
            length,
        }
    }

    /// An axis from the first of these to the last, with a margin at both ends.
    fn between(spread: Spread, ticks: &[(f64, String)], length: f64) -> Scale {
        let first = ticks.first().map_or(1.0, |tick| tick.0);
        let last = ticks.last().map_or(first, |tick| tick.0);
        let (from, to) = match spread {
            Spread::Linear => {
                let margin = ((last - first) * 0.06).max(0.5);
                (first - margin, last + margin)
            }
            Spread::Log => {
                let margin = (last / first).powf(0.06).max(1.1);
                (first / margin, last * margin)
            }
        };
        Scale {
            spread,
            from,
            to,
            length,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let share = match self.spread {
            Spread::Linear => (value - self.from) / (self.to - self.from),
            Spread::Log => (value / self.from).ln() / (self.to / self.from).ln(),
        };
        share.clamp(0.0, 1.0) * self.length
    }

    /// Round numbers along it.
    fn ticks(&self) -> Vec<f64> {
        match self.spread {
            Spread::Linear => {
                let step = round_step(self.to / TICKS);
                let count = (self.to / step + 0.5) as usize;
                (0..=count).map(|place| place as f64 * step).collect()
            }
            Spread::Log => {
                let decades = (self.to / self.from).log10().round() as i32;
                // Few decades have room for numbers between them.
                let within: &[f64] = if decades <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let all = (0..=decades).flat_map(|decade| {
                    let begin = self.from * 10_f64.powi(decade);
                    within.iter().map(move |factor| begin * factor)
                });
                all.filter(|tick| *tick <= self.to * 1.001).collect()
            }
        }
    }
}

/// The least of 1, 2, 2.5 and 5 times a power of ten that is no less.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let factors = [1.0, 2.0, 2.5, 5.0, 10.0];
    let factor = factors
        .into_iter()
        .find(|factor| factor * power >= least * 0.9999);
    factor.unwrap_or(10.0) * power
}

/// A number for people: `250`, `1.5`, `20k`, `5M`.
pub fn short(number: f64) -> String {
    let (number, unit) = match number {
        large if large >= 1e6 => (large / 1e6, "M"),
        large if large >= 1e3 => (large / 1e3, "k"),
        small => (small, ""),
    };
    let digits = format!("{number:.2}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{digits}{unit}")
}

impl Figure {
    /// The figure as an SVG document.
    pub fn svg(&self) -> String {
        let panel_width = LEFT + PLOT_WIDTH + RIGHT;
        let width = panel_width * self.panels.len() as f64;
        let height = HEAD + TOP + PLOT_HEIGHT + BOTTOM;
        let title = escaped(&self.title);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n\
             <text class=\"title\" x=\"12\" y=\"23\">{title}</text>\n"
        );
        for (place, panel) in self.panels.iter().enumerate() {
            let (x, y) = (place as f64 * panel_width + LEFT, HEAD + TOP);
            put(&mut svg, format_args!("<g transform=\"translate({x} {y})\">"));
            self.panel(&mut svg, panel);
            svg.push_str("</g>\n");
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn panel(&self, svg: &mut String, panel: &Panel) {
        let x = Scale::between(self.x_spread, &self.x_ticks, PLOT_WIDTH);
        let values = panel.lines.iter().flat_map(|line| &line.points);
        let y = Scale::around(panel.spread, values.map(|point| point.1), PLOT_HEIGHT);
        let up = |value: f64| PLOT_HEIGHT - y.place(value);
        let title = escaped(&panel.title);
        put(
            svg,
            format_args!("<text x=\"{}\" y=\"-14\">{title}</text>", 12.0 - LEFT),
        );
        for tick in y.ticks() {
            let (at, number) = (up(tick), short(tick));
            put(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"0\" x2=\"{PLOT_WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
                ),
            );
            put(
                svg,
                format_args!(
                    "<text x=\"-8\" y=\"{:.1}\" text-anchor=\"end\">{number}</text>",
                    at + 4.5
                ),
            );
        }
        put(
            svg,
            format_args!(
                "<line class=\"axis\" x1=\"0\" x2=\"{PLOT_WIDTH}\" y1=\"{PLOT_HEIGHT}\" y2=\"{PLOT_HEIGHT}\"/>"
            ),
        );
        for (value, name) in &self.x_ticks {
            let (at, below) = (x.place(*value), PLOT_HEIGHT + 20.0);
            put(
                svg,
                format_args!(
                    "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{PLOT_HEIGHT}\" y2=\"{}\"/>",
                    PLOT_HEIGHT + 4.0
                ),
            );
            put(
                svg,
                format_args!(
                    "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>",
                    escaped(name)
                ),
            );
        }
        put(
            svg,
            format_args!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                PLOT_WIDTH / 2.0,
                PLOT_HEIGHT + 42.0,
                escaped(&self.x_label)
            ),
        );
        lines(svg, &panel.lines, |point| (x.place(point.0), up(point.1)));
    }
}

/// The lines, and their names where they end.
fn lines(svg: &mut String, lines: &[Line], place: impl Fn(&(f64, f64)) -> (f64, f64)) {
    let mut names = Vec::new();
    for line in lines {
        let places: Vec<(f64, f64)> = line.points.iter().map(&place).collect();
        let Some((end_x, end_y)) = places.last().copied() else {
            continue;
        };
        let class = line.ink.class();
        let dashed = if line.dashed { " dashed" } else { "" };
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        put(
            svg,
            format_args!(
                "<polyline class=\"line {class}{dashed}\" points=\"{}\"/>",
                path.join(" ")
            ),
        );
        for (x, y) in &places {
            put(
                svg,
                format_args!("<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"),
            );
        }
        names.push((end_x + 8.0, end_y + 4.5, class, escaped(&line.name)));
    }
    names.sort_by(|one, other| one.1.total_cmp(&other.1));
    let wanted: Vec<f64> = names.iter().map(|name| name.1).collect();
    for ((x, _, class, name), y) in names.into_iter().zip(apart(&wanted)) {
        put(
            svg,
            format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{name}</text>"),
        );
    }
}

/// Places near those that are wanted, which rise, no closer to each other than a name is high, and none below the plot.
fn apart(wanted: &[f64]) -> Vec<f64> {
    let mut places = wanted.to_vec();
    for index in 1..places.len() {
        places[index] = places[index].max(places[index - 1] + NAME_HEIGHT);
    }
    let mut lowest = PLOT_HEIGHT + 4.5;
    for place in places.iter_mut().rev() {
        *place = place.min(lowest);
        lowest = *place - NAME_HEIGHT;
    }
    places
}

fn put(svg: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(svg, "{arguments}").expect("a string takes all that is written to it");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use quick_xml::events::Event;

    fn figure(lines: Vec<Line>) -> Figure {
        Figure {
            title: "rates & <sizes>".to_owned(),
            x_label: "pairs".to_owned(),
            x_spread: Spread::Log,
            x_ticks: [1e4, 1e5, 1e6].map(|value| (value, short(value))).to_vec(),
            panels: vec![
                Panel {
                    title: "puts/s".to_owned(),
                    spread: Spread::Linear,
                    lines: lines.clone(),
                },
                Panel {
                    title: "ms".to_owned(),
                    spread: Spread::Log,
                    lines,
                },
            ],
        }
    }

    fn line(name: &str, ink: Ink, last: f64) -> Line {
        Line {
            name: name.to_owned(),
            ink,
            dashed: ink == Ink::B,
            points: vec![(1e4, 18_000.0), (1e5, 17_500.0), (1e6, last)],
        }
    }

    /// The value of an attribute of each element of this name, in order; fails where the text is not XML.
    fn attributes(svg: &str, element: &str, attribute: &str) -> Vec<String> {
        let mut reader = quick_xml::Reader::from_str(svg);
        let mut found = Vec::new();
        let mut open = 0_i32;
        loop {
            match reader.read_event().expect("well-formed XML") {
                Event::Eof => break,
                Event::Start(_) => open += 1,
                Event::End(_) => open -= 1,
                _ => {}
            }
        }
        assert_eq!(open, 0, "all elements are closed");
        let mut reader = quick_xml::Reader::from_str(svg);
        loop {
            let event = match reader.read_event().expect("well-formed XML") {
                Event::Eof => return found,
                Event::Start(start) | Event::Empty(start) => start,
                _ => continue,
            };
            if event.name().as_ref() == element.as_bytes() {
                let value = event.try_get_attribute(attribute).expect("attributes are quoted");
                found.extend(value.map(|value| String::from_utf8_lossy(&value.value).into_owned()));
            }
        }
    }

    fn numbers(svg: &str, element: &str, attribute: &str) -> Vec<f64> {
        let found = attributes(svg, element, attribute);
        found
            .iter()
            .map(|value| value.parse().expect("a number"))
            .collect()
    }

    #[test]
    fn a_figure_is_xml_whatever_it_is_called() {
        let svg = figure(vec![line("a<b>", Ink::A, 17_000.0), line("c&d", Ink::B, 9_000.0)]).svg();
        assert_eq!(attributes(&svg, "polyline", "points").len(), 4);
        assert!(svg.contains("rates &amp; &lt;sizes&gt;"));
        assert!(svg.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn every_point_is_within_its_plot_and_higher_values_are_higher() {
        let svg = figure(vec![line("up", Ink::A, 21_000.0), line("down", Ink::B, 4_000.0)]).svg();
        let (x, y) = (numbers(&svg, "circle", "cx"), numbers(&svg, "circle", "cy"));
        assert_eq!(x.len(), 12);
        assert!(x.iter().all(|x| (0.0..=PLOT_WIDTH).contains(x)), "{x:?}");
        assert!(y.iter().all(|y| (0.0..=PLOT_HEIGHT).contains(y)), "{y:?}");
        assert!(y[2] < y[0], "21,000 stands above 18,000");
        assert!(y[5] > y[3], "4,000 stands below 18,000");
        // Decades are as far from each other.
        assert!(((x[1] - x[0]) - (x[2] - x[1])).abs() < 0.2, "{x:?}");
    }

    #[test]
    fn an_axis_holds_its_values_between_round_numbers() {
        let linear = Scale::around(Spread::Linear, [17_131.0, 900.0].into_iter(), 100.0);
        assert_eq!((linear.from, linear.to), (0.0, 20_000.0));
        assert_eq!(linear.ticks(), [0.0, 5_000.0, 10_000.0, 15_000.0, 20_000.0]);
        assert_eq!(linear.place(5_000.0), 25.0);
        let log = Scale::around(Spread::Log, [0.4, 31.0].into_iter(), 90.0);
        assert_eq!((log.from, log.to), (0.1, 100.0));
        assert_eq!(log.ticks().len(), 4);
        assert!((log.place(1.0) - 30.0).abs() < 1e-9);
        let short = Scale::around(Spread::Log, [3.0, 4.0].into_iter(), 90.0);
        assert_eq!(short.ticks(), [1.0, 2.0, 5.0, 10.0]);
        let nothing = Scale::around(Spread::Linear, [].into_iter(), 90.0);
        assert_eq!(nothing.place(0.0), 0.0);
    }

    #[test]
    fn names_do_not_cover_each_other() {
        let places = apart(&[50.0, 52.0, 53.0, PLOT_HEIGHT]);
        assert!(
            places.windows(2).all(|pair| pair[1] - pair[0] >= NAME_HEIGHT),
            "{places:?}"
        );
        let low = apart(&[PLOT_HEIGHT, PLOT_HEIGHT + 1.0, PLOT_HEIGHT + 2.0]);
        assert!(
            low.windows(2).all(|pair| pair[1] - pair[0] >= NAME_HEIGHT),
            "{low:?}"
        );
        assert!(low[2] <= PLOT_HEIGHT + 4.5);
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.5, 12.25, 250.0, 2_500.0, 20_000.0, 5e6].map(short);
        assert_eq!(shown, ["0", "0.5", "12.25", "250", "2.5k", "20k", "5M"]);
    }
}
