//! `report.html`: what a person wants to see of a run, in one file without anything from elsewhere.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use super::energy::{METHOD, Method, footprint};
use super::log::{ABANDONED, LOG, Line, Look, STATISTICS, read_lines};
use super::plot::{Chart, Series, escape, measured, short};
use crate::ledger::{Entry, Event, LEDGER};

const STYLE: &str = "
:root{--back:#fbfaf7;--card:#fff;--ink:#22252a;--soft:#6a7078;--grid:#e6e4de;--a:#2f6fb0;--b:#c2572b;--c:#4a8a57;--d:#8a5aa8;--pale:#b9cde2;--mark:#c0392b}
@media(prefers-color-scheme:dark){:root{--back:#16181c;--card:#1f2227;--ink:#e4e6e9;--soft:#9aa1aa;--grid:#33373e;--a:#6fa8dc;--b:#e08a5f;--c:#7cbf8a;--d:#b48fd0;--pale:#3d536b;--mark:#e57368}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1400px;margin:0 auto;padding:24px}h1{font-size:26px;margin:0}h2{font-size:18px;margin:32px 0 10px}
.under{color:var(--soft);margin:2px 0 20px}.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px}
.tile,figure{background:var(--card);border:1px solid var(--grid);border-radius:10px;padding:12px 14px;margin:0}
.tile b{display:block;font-size:20px;white-space:nowrap;font-weight:600;font-variant-numeric:tabular-nums}.tile span{color:var(--soft);font-size:13px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr));gap:14px}
figcaption{font-weight:600}figcaption small{font-weight:400;color:var(--soft)}svg{width:100%;height:auto;display:block}
svg text{fill:var(--soft);font-size:11px;font-variant-numeric:tabular-nums}.end{text-anchor:end}.middle{text-anchor:middle}
.grid{stroke:var(--grid)}.mark{stroke:var(--mark);stroke-dasharray:4 3;stroke-width:1.5}.line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.line.a{stroke:var(--a)}.line.b{stroke:var(--b)}.line.c{stroke:var(--c)}.line.d{stroke:var(--d)}.line.pale{stroke:var(--pale);stroke-width:1}
.legend{margin:4px 0 0;color:var(--soft);font-size:13px}.legend span{margin-right:14px}.legend i{display:inline-block;width:14px;height:3px;margin-right:5px;vertical-align:middle}
i.a{background:var(--a)}i.b{background:var(--b)}i.c{background:var(--c)}i.d{background:var(--d)}i.pale{background:var(--pale)}
.none{color:var(--soft)}table{border-collapse:collapse;width:100%;background:var(--card);border:1px solid var(--grid);border-radius:10px}
td,th{text-align:left;padding:7px 12px;border-bottom:1px solid var(--grid);font-variant-numeric:tabular-nums}th{color:var(--soft);font-weight:500;font-size:13px}
summary{font-size:18px;font-weight:700;margin:32px 0 10px;cursor:pointer}pre{background:var(--card);border:1px solid var(--grid);border-radius:10px;padding:12px;overflow:auto;font-size:12.5px}.scroll{overflow-x:auto}
";

/// The page of the run in this folder. `name` and `config` are those of its newest checkpoint, where there is one.
pub fn page(run: &Path, name: &str, config: Option<&Value>) -> String {
    let lines: Vec<Line> = read_lines(&run.join(LOG));
    let abandoned: Vec<Line> = read_lines(&run.join(ABANDONED));
    let looks: Vec<Look> = read_lines(&run.join(STATISTICS));
    let entries: Vec<Entry> = read_lines(&run.join(LEDGER));
    let steps = config.and_then(|config| config["train"]["steps"].as_u64());
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0} — training</title><style>{STYLE}</style><main><h1>{0}</h1>",
        escape(name)
    );
    let updates = lines.last().map_or(0, |line| line.step);
    let of = steps.map_or(String::new(), |steps| format!(" of {steps}"));
    let _ = write!(out, "<p class=\"under\">{updates}{of} updates</p><div class=\"tiles\">");
    for (value, what) in tiles(&lines, &abandoned, &entries) {
        let _ = write!(out, "<div class=\"tile\"><b>{}</b><span>{}</span></div>", escape(&value), escape(&what));
    }
    out += "</div><h2>Course</h2><div class=\"charts\">";
    course(&lines, &abandoned, &entries).iter().for_each(|chart| out += &chart.svg());
    out += "</div><h2>Layers</h2><div class=\"charts\">";
    layers(&looks).iter().for_each(|chart| out += &chart.svg());
    out += "</div><h2>Ledger</h2>";
    out += &ledger(&entries);
    let _ = write!(out, "<h2>Energy</h2><p>{}</p>", escape(METHOD));
    if let Some(config) = config {
        let json = serde_json::to_string_pretty(config).unwrap_or_default();
        let _ = write!(out, "<details><summary>Configuration</summary><pre>{}</pre></details>", escape(&json));
    }
    out + "</main></html>\n"
}

fn tiles(lines: &[Line], abandoned: &[Line], entries: &[Entry]) -> Vec<(String, String)> {
    let Some(last) = lines.last() else { return vec![("no updates".to_owned(), "yet".to_owned())] };
    let recent = &lines[lines.len().saturating_sub(50)..];
    let mean = |of: &dyn Fn(&Line) -> f64| recent.iter().map(of).sum::<f64>() / recent.len() as f64;
    let footprint = footprint(lines.iter().chain(abandoned), &Method::default());
    let mut tiles = vec![(format!("{:.3}", mean(&|l| l.loss)), format!("loss, nats a token, last {}", recent.len()))];
    if let Some(bits) = lines.iter().rev().find_map(|line| line.heldout_bits_per_byte) {
        tiles.push((format!("{bits:.3}"), "held-out bits a byte".to_owned()));
    }
    let count = |wanted: &dyn Fn(&Event) -> bool| entries.iter().filter(|e| wanted(&e.event)).count();
    let (skipped, back) = (
        count(&|event| matches!(event, Event::Skipped { .. })),
        count(&|event| matches!(event, Event::RolledBack { .. })),
    );
    tiles.extend([
        (short(last.tokens as f64), "tokens seen".to_owned()),
        (short(mean(&|l| l.tokens_per_second)), "tokens a second".to_owned()),
        (duration(last.seconds), "of training".to_owned()),
        (measured(last.memory_bytes as f64, "B"), "memory".to_owned()),
        (format!("{} / {}", skipped, back), "updates left out / rollbacks".to_owned()),
        (measured(footprint.kwh * 1000.0, "Wh"), "energy, estimated".to_owned()),
        (measured(footprint.grams, "g"), "CO₂ equivalents, estimated".to_owned()),
    ]);
    if let Some(mfu) = last.mfu {
        tiles.push((format!("{:.0} %", mfu * 100.0), "of the machine's measured peak (MFU)".to_owned()));
    }
    tiles
}

fn duration(seconds: f64) -> String {
    match seconds as u64 {
        s if s < 60 => format!("{seconds:.1} s"),
        s if s < 3600 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}

fn course<'a>(lines: &[Line], abandoned: &[Line], entries: &[Entry]) -> Vec<Chart<'a>> {
    let points = |lines: &[Line], of: &dyn Fn(&Line) -> f64| -> Vec<(f64, f64)> {
        lines.iter().map(|line| (line.step as f64, of(line))).collect()
    };
    let series = |name: &str, class, points| Series { name: name.to_owned(), class, points };
    let marks: Vec<(f64, String)> = entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::RolledBack { step, to_step, reason, .. } => {
                Some((*step as f64, format!("step {step}: {reason}; back to step {to_step}")))
            }
            _ => None,
        })
        .collect();
    let with_course = |class, of: &dyn Fn(&Line) -> f64| {
        let points = points(lines, of);
        let smooth = smoothed(&points);
        vec![series("each update", "pale", points), series("smoothed", class, smooth)]
    };
    let heldout = lines.iter().filter_map(|l| Some((l.step as f64, l.heldout_bits_per_byte?))).collect();
    let chart = |title, unit, logarithmic, series| Chart { title, unit, logarithmic, series, marks: marks.clone() };
    let mut loss = with_course("a", &|l| l.loss);
    if !abandoned.is_empty() {
        loss.push(series("courses that were left", "b", points(abandoned, &|l| l.loss)));
    }
    let mut charts = vec![
        chart("Loss", "nats a token", false, loss),
        chart("Held-out text", "bits a byte", false, vec![series("", "c", heldout)]),
        chart("Gradient norm", "before clipping", true, with_course("a", &|l| l.gradient_norm)),
        chart("Learning rate", "", false, vec![series("", "d", points(lines, &|l| l.learning_rate))]),
        chart("Throughput", "tokens a second", false, with_course("c", &|l| l.tokens_per_second)),
        chart("Memory", "bytes", false, vec![series("", "b", points(lines, &|l| l.memory_bytes as f64))]),
    ];
    if lines.iter().any(|line| line.mfu.is_some()) {
        let mfu = with_course("d", &|l| l.mfu.unwrap_or(f64::NAN) * 100.0);
        charts.push(chart("Use of the machine (MFU)", "% of the measured peak", false, mfu));
    }
    charts
}

/// The running mean over about twenty updates; what is no number leaves it as it is.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut mean = None;
    points
        .iter()
        .filter(|(_, y)| y.is_finite())
        .map(|(x, y)| {
            let now = mean.map_or(*y, |mean| mean + 0.05 * (y - mean));
            mean = Some(now);
            (*x, now)
        })
        .collect()
}

/// The first, the middle and the last layer, and the greatest of all.
fn layers<'a>(looks: &[Look]) -> Vec<Chart<'a>> {
    let count =
        looks.iter().map(|look| look.layers.iter().filter(|l| l.activations.is_some()).count()).max().unwrap_or(0);
    let chosen: Vec<(usize, &'static str)> = match count {
        0 => Vec::new(),
        1 => vec![(0, "a")],
        2 => vec![(0, "a"), (1, "b")],
        n => vec![(0, "a"), (n / 2, "b"), (n - 1, "c")],
    };
    let chart =
        |title: &'static str, unit, logarithmic, of: &dyn Fn(&crate::statistics::LayerStatistics) -> Option<f64>| {
            let mut series: Vec<Series> = chosen
                .iter()
                .map(|(layer, class)| {
                    let wanted = layer.to_string();
                    let at = |look: &Look| of(look.layers.iter().find(|l| l.layer == wanted)?);
                    let points = looks.iter().filter_map(|look| Some((look.step as f64, at(look)?))).collect();
                    Series { name: format!("layer {layer}"), class, points }
                })
                .collect();
            let greatest = looks.iter().map(|look| {
                let largest =
                    look.layers.iter().filter(|l| l.activations.is_some()).filter_map(of).fold(f64::NAN, f64::max);
                (look.step as f64, largest)
            });
            if count > 3 {
                series.push(Series { name: "greatest of all".to_owned(), class: "d", points: greatest.collect() });
            }
            Chart { title, unit, logarithmic, series, marks: Vec::new() }
        };
    vec![
        chart("Gradient norm of a layer", "", true, &|l| Some(l.gradient_norm)),
        chart("Activations behind a layer", "root of the mean square", false, &|l| Some(l.activations?.rms)),
        chart("Largest activation", "magnitude", true, &|l| Some(l.activations?.largest)),
        chart("Largest attention logit", "before the softmax", false, &|l| Some(l.activations?.attention_logit)),
        chart("Weight norm of a layer", "", false, &|l| Some(l.weight_norm)),
    ]
}

fn ledger(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "<p class=\"none\">Nothing out of the ordinary.</p>".to_owned();
    }
    let mut out = String::from("<div class=\"scroll\"><table><tr><th>Attempt<th>Step<th>What<th>Figures</tr>");
    for entry in entries {
        let (what, figures) = match &entry.event {
            Event::Warned { loss, gradient_norm, z, .. } => {
                ("warned", format!("loss {loss:.3}, gradient norm {gradient_norm:.3}, z {z:.1}"))
            }
            Event::Skipped { loss, gradient_norm, z, .. } => {
                ("update left out", format!("loss {loss:.3}, gradient norm {gradient_norm:.3}, z {z:.1}"))
            }
            Event::RolledBack { to_step, from, until, rate, reason, .. } => {
                let (from, until) =
                    (format!("{}:{}", from.epoch, from.place), format!("{}:{}", until.epoch, until.place));
                let data = format!("data {from} to {until} left out from then on");
                ("went back", format!("to step {to_step}: {reason}; {data}, rate × {rate:.3}"))
            }
        };
        let (attempt, step) = (entry.attempt + 1, entry.event.step());
        let _ = write!(out, "<tr><td>{attempt}<td>{step}<td>{what}<td>{}</tr>", escape(&figures));
    }
    out + "</table></div>"
}
