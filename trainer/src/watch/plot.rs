//! Line charts as SVG, without scripts or fonts of their own.

use std::fmt::Write;

/// A line of a chart.
pub struct Series {
    /// What the legend says; nothing for a line without an entry.
    pub name: String,
    /// The class that colours it, of the page's style.
    pub class: &'static str,
    /// Points from left to right; those that are no number break the line.
    pub points: Vec<(f64, f64)>,
}

/// A chart.
pub struct Chart<'a> {
    /// What is shown.
    pub title: &'a str,
    /// The unit of the vertical axis.
    pub unit: &'a str,
    /// Powers of ten at equal distances.
    pub logarithmic: bool,
    /// The lines.
    pub series: Vec<Series>,
    /// Places on the horizontal axis to mark, with what the marks say.
    pub marks: Vec<(f64, String)>,
}

// About the pixels that a chart has on a page of three columns, so that its letters keep their size.
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 210.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 24.0;
/// Points of a line that are drawn: of more, the least and the greatest of each stretch.
const POINTS: usize = 600;

impl Chart<'_> {
    /// The chart as a `figure` with an SVG. Without any point it says that there is none.
    pub fn svg(&self) -> String {
        let mut out =
            format!("<figure><figcaption>{} <small>{}</small></figcaption>", escape(self.title), escape(self.unit));
        let all = || self.series.iter().flat_map(|s| &s.points).filter(|(_, y)| self.shown(*y));
        let (x_min, x_max) = extent(all().map(|p| p.0));
        let (y_min, y_max) = extent(all().map(|p| self.scaled(p.1)));
        if all().next().is_none() {
            out += "<p class=\"none\">nothing measured yet</p></figure>";
            return out;
        }
        let pad = ((y_max - y_min) * 0.05).max(1e-9 + y_max.abs() * 1e-3);
        let (y_min, y_max) = (y_min - pad, y_max + pad);
        let place_x = |x: f64| LEFT + (x - x_min) / (x_max - x_min).max(1e-9) * (WIDTH - LEFT - RIGHT);
        let place_y = |y: f64| TOP + (y_max - y) / (y_max - y_min) * (HEIGHT - TOP - BOTTOM);
        let _ =
            write!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(self.title));
        let marked = if self.logarithmic { logarithmic_ticks(y_min, y_max) } else { ticks(y_min, y_max, 5) };
        for tick in marked {
            let (y, value) = (place_y(tick), if self.logarithmic { 10_f64.powf(tick) } else { tick });
            let right = WIDTH - RIGHT;
            let _ = write!(out, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
            let (x, y) = (LEFT - 6.0, y + 4.0);
            let _ = write!(out, "<text class=\"end\" x=\"{x}\" y=\"{y:.1}\">{}</text>", short(value));
        }
        for tick in ticks(x_min, x_max, 6) {
            let (x, y) = (place_x(tick), HEIGHT - BOTTOM + 16.0);
            let _ = write!(out, "<text class=\"middle\" x=\"{x:.1}\" y=\"{y}\">{}</text>", short(tick));
        }
        for (at, text) in self.marks.iter().filter(|(at, _)| (x_min..=x_max).contains(at)) {
            let (x, bottom) = (place_x(*at), HEIGHT - BOTTOM);
            let _ =
                write!(out, "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"><title>");
            let _ = write!(out, "{}</title></line>", escape(text));
        }
        for series in &self.series {
            let mut path = String::new();
            let mut pen = false;
            for (x, y) in thinned(&series.points) {
                if !self.shown(y) {
                    pen = false;
                    continue;
                }
                let command = if pen { 'L' } else { 'M' };
                let _ = write!(path, "{command}{:.1} {:.1}", place_x(x), place_y(self.scaled(y)));
                pen = true;
            }
            if series.points.len() == 1 {
                path += "h0.1";
            }
            let _ = write!(out, "<path class=\"line {}\" d=\"{path}\"/>", series.class);
        }
        out += "</svg>";
        if self.series.iter().filter(|s| !s.name.is_empty()).count() > 1 {
            out += "<p class=\"legend\">";
            for series in self.series.iter().filter(|s| !s.name.is_empty()) {
                let _ = write!(out, "<span><i class=\"{}\"></i>{}</span>", series.class, escape(&series.name));
            }
            out += "</p>";
        }
        out + "</figure>"
    }

    fn shown(&self, y: f64) -> bool {
        y.is_finite() && (!self.logarithmic || y > 0.0)
    }

    fn scaled(&self, y: f64) -> f64 {
        if self.logarithmic { y.log10() } else { y }
    }
}

/// What of a long line is drawn.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(POINTS / 2);
    points
        .chunks(stretch)
        .flat_map(|chunk| {
            let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
            let (least, greatest) = (chunk.iter().min_by(by), chunk.iter().max_by(by));
            let mut both: Vec<(f64, f64)> = least.into_iter().chain(greatest).copied().collect();
            both.sort_by(|a, b| a.0.total_cmp(&b.0));
            both
        })
        .collect()
}

fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}

/// Round numbers inside a range, about `wanted` of them.
fn ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let rough = (high - low) / wanted as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return vec![low];
    }
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|f| f * power).find(|s| *s >= rough).unwrap_or(power);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Decimal logarithms between two of them, of powers of ten, or of these with 3, or with 2 and 5, until there are three;
/// of round numbers where the range is too narrow for that.
fn logarithmic_ticks(low: f64, high: f64) -> Vec<f64> {
    const MOST: usize = 6;
    let decades = || (low.floor() as i32)..=(high.floor() as i32);
    let of = |factors: &[f64]| -> Vec<f64> {
        let all = decades().flat_map(|decade| factors.iter().map(move |factor| f64::from(decade) + factor.log10()));
        all.filter(|tick| (low..=high).contains(tick)).collect()
    };
    let marked = [&[1.0][..], &[1.0, 3.0], &[1.0, 2.0, 5.0]].map(of).into_iter().find(|ticks| ticks.len() >= 3);
    match marked {
        Some(ticks) => ticks.iter().copied().step_by(ticks.len().div_ceil(MOST)).collect(),
        None => ticks(10_f64.powf(low), 10_f64.powf(high), 5).into_iter().map(f64::log10).collect(),
    }
}

/// A number for an axis or a tile: three digits that count, with k, M, G or T where it is large.
pub fn short(value: f64) -> String {
    let (number, prefix) = digits_and_prefix(value);
    number + prefix
}

/// The same with a unit, from which a space parts it.
pub fn measured(value: f64, unit: &str) -> String {
    let (number, prefix) = digits_and_prefix(value);
    format!("{number} {prefix}{unit}")
}

fn digits_and_prefix(value: f64) -> (String, &'static str) {
    let magnitude = value.abs();
    if value == 0.0 {
        return ("0".to_owned(), "");
    }
    if !value.is_finite() {
        return (value.to_string(), "");
    }
    if magnitude < 1e-3 {
        return (format!("{value:.1e}"), "");
    }
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")];
    let (unit, name) = units.into_iter().find(|(unit, _)| magnitude >= *unit).unwrap_or((1.0, ""));
    let scaled = value / unit;
    let digits = 2 - (scaled.abs().log10().floor() as i32).clamp(-2, 2);
    let text = format!("{scaled:.*}", digits as usize);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    (text, name)
}

/// Text as it may stand in HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [(0.0, "0"), (1234.0, "1.23k"), (0.05, "0.05"), (12.0, "12"), (2.5e9, "2.5G"), (3e-4, "3.0e-4")];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
        assert_eq!((measured(6.25e8, "B"), measured(0.325, "g")), ("625 MB".to_owned(), "0.325 g".to_owned()));
        let labels = |low: f64, high: f64| -> Vec<String> {
            logarithmic_ticks(low.log10(), high.log10()).into_iter().map(|tick| short(10_f64.powf(tick))).collect()
        };
        assert_eq!(labels(0.7, 2.8), ["1", "1.5", "2", "2.5"]);
        assert_eq!(labels(0.7, 5.5), ["1", "2", "5"]);
        assert_eq!(labels(0.08, 5.5), ["0.1", "0.3", "1", "3"]);
        assert_eq!(labels(0.5, 2e3), ["1", "10", "100", "1k"]);
        assert!((4..=6).contains(&labels(1e-6, 1e6).len()));
        assert_eq!(labels(41.0, 49.0), ["42", "44", "46", "48"]);
        assert_eq!(ticks(0.3, 9.7, 5), [2.0, 4.0, 6.0, 8.0]);
        assert_eq!(ticks(1.0, 1.0, 5), [1.0]);
    }

    #[test]
    fn a_chart_draws_every_line_within_its_frame_and_skips_what_is_no_number() {
        let points: Vec<(f64, f64)> =
            (1..5000).map(|i| (f64::from(i), if i == 2000 { f64::NAN } else { 1.0 / f64::from(i) })).collect();
        let line = |name: &str| Series { name: name.to_owned(), class: "a", points: points.clone() };
        let chart = Chart {
            title: "a < b",
            unit: "nats",
            logarithmic: true,
            series: vec![line("one"), line("two")],
            marks: vec![(100.0, "here & there".to_owned()), (1e9, "outside".to_owned())],
        };
        let svg = chart.svg();
        assert!(svg.contains("a &lt; b") && svg.contains("here &amp; there") && !svg.contains("outside"));
        assert_eq!((svg.matches("class=\"line a\"").count(), svg.matches("</i>").count()), (2, 2));
        assert!(!svg.contains("NaN") && svg.len() < 60_000, "{}", svg.len());
        let empty = Chart { title: "t", unit: "", logarithmic: false, series: vec![], marks: vec![] };
        assert!(empty.svg().contains("nothing measured yet"));
    }
}
