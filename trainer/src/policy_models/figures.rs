//! Figures on what was held out, with 95 % intervals.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Counts of right and wrong answers to "is it above?".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Above, and said so.
    pub hits: u64,
    /// Above, and not said so.
    pub misses: u64,
    /// Said to be above, and not.
    pub false_alarms: u64,
    /// Neither.
    pub passes: u64,
}

impl Tally {
    /// Counts one answer.
    pub fn add(&mut self, truth: bool, said: bool) {
        *match (truth, said) {
            (true, true) => &mut self.hits,
            (true, false) => &mut self.misses,
            (false, true) => &mut self.false_alarms,
            (false, false) => &mut self.passes,
        } += 1;
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Tally) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.false_alarms += other.false_alarms;
        self.passes += other.passes;
    }

    /// Of what was said to be above, how much was.
    pub fn precision(&self) -> Share {
        Share { part: self.hits, of: self.hits + self.false_alarms }
    }

    /// Of what is above, how much was said to be.
    pub fn recall(&self) -> Share {
        Share { part: self.hits, of: self.hits + self.misses }
    }

    /// Of what is not above, how much was said to be: what is refused without need.
    pub fn over_refusal(&self) -> Share {
        Share { part: self.false_alarms, of: self.false_alarms + self.passes }
    }
}

/// A share of a number of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// How many.
    pub part: u64,
    /// Of how many.
    pub of: u64,
}

impl Share {
    /// The share itself; none of nothing.
    pub fn value(&self) -> Option<f64> {
        (self.of > 0).then(|| self.part as f64 / self.of as f64)
    }

    /// The 95 % interval of Wilson (1927), "Probable Inference, the Law of Succession, and Statistical Inference".
    pub fn interval(&self) -> (f64, f64) {
        const Z: f64 = 1.959_964;
        if self.of == 0 {
            return (0.0, 1.0);
        }
        let n = self.of as f64;
        let p = self.part as f64 / n;
        let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        ((middle - half).max(0.0), (middle + half).min(1.0))
    }
}

impl fmt::Display for Share {
    /// In percent: `97.5 (93.1–99.2)`, or a dash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.value() {
            None => "–".to_owned(),
            Some(value) => {
                let (low, high) = self.interval();
                format!("{:.1} ({:.1}–{:.1})", value * 100.0, low * 100.0, high * 100.0)
            }
        };
        f.pad(&text)
    }
}

/// Tallies by what is asked and by language; `all` for all languages together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures(pub BTreeMap<String, BTreeMap<String, Tally>>);

impl Figures {
    /// Counts an answer for its language and for all.
    pub fn add(&mut self, question: &str, language: &str, truth: bool, said: bool) {
        let of_question = self.0.entry(question.to_owned()).or_default();
        for language in ["all", language] {
            of_question.entry(language.to_owned()).or_default().add(truth, said);
        }
    }
}

impl fmt::Display for Figures {
    /// A Markdown table for each question.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (question, languages) in &self.0 {
            writeln!(f, "\n{question}\n")?;
            writeln!(f, "| language | texts | above | precision % | recall % | over-refusal % |")?;
            writeln!(f, "|---|---:|---:|---:|---:|---:|")?;
            for (language, tally) in languages {
                let above = tally.hits + tally.misses;
                writeln!(
                    f,
                    "| {language} | {} | {above} | {} | {} | {} |",
                    above + tally.false_alarms + tally.passes,
                    tally.precision(),
                    tally.recall(),
                    tally.over_refusal()
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_wilsons() {
        // Newcombe 1998, table I: 81 of 263, and 0 of 20.
        let (low, high) = Share { part: 81, of: 263 }.interval();
        assert!((low - 0.2553).abs() < 5e-5 && (high - 0.3662).abs() < 5e-5, "{low} {high}");
        let (low, high) = Share { part: 0, of: 20 }.interval();
        assert!(low.abs() < 1e-9 && (high - 0.1611).abs() < 5e-5, "{low} {high}");
        assert_eq!(Share { part: 0, of: 0 }.to_string(), "–");
    }

    #[test]
    fn tallies_answer_for_each_language_and_for_all() {
        let mut figures = Figures::default();
        figures.add("R", "de", true, true);
        figures.add("R", "de", false, true);
        figures.add("R", "fr", true, false);
        let all = figures.0["R"]["all"];
        assert_eq!(all.precision(), Share { part: 1, of: 2 });
        assert_eq!(all.recall(), Share { part: 1, of: 2 });
        assert_eq!(figures.0["R"]["de"].over_refusal(), Share { part: 1, of: 1 });
        assert!(figures.to_string().contains("| fr | 1 | 1 | – | 0.0 (0.0–79.3) | – |"), "{figures}");
    }
}
