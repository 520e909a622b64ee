//! What is asked of SLURM for each job.

use std::fmt;
use std::str::FromStr;

use super::SlurmError;

/// What is asked of SLURM for each job.
#[derive(Clone, Debug, clap::Args)]
pub struct JobRequest {
    /// Machines of a job
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub nodes: u32,
    /// Processes on each machine
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub tasks_per_node: u32,
    /// Accelerators of each machine, such as 4 or a100:4
    #[arg(long, value_name = "GPUS")]
    pub gpus_per_node: Option<Word>,
    /// Processor cores of each process, and its threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cpus_per_task: Option<u32>,
    /// Time limit of a job: MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS, DAYS-HOURS, and so on; without it the
    /// partition's
    #[arg(long)]
    pub time: Option<TimeLimit>,
    /// The partition
    #[arg(long)]
    pub partition: Option<Word>,
    /// The account that is charged
    #[arg(long)]
    pub account: Option<Word>,
    /// Jobs of a chain, of which each begins when the one before it has ended; one alone queues itself again instead
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub jobs: u32,
    /// Seconds before the time limit at which the trainer is told to save
    #[arg(long, value_name = "N", default_value_t = 180, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub signal_seconds: u32,
}

impl JobRequest {
    /// Processes of a job.
    pub fn tasks(&self) -> u64 {
        u64::from(self.nodes) * u64::from(self.tasks_per_node)
    }

    /// Refuses what cannot be.
    ///
    /// # Errors
    /// A time limit that is over before the signal.
    pub fn validate(&self) -> Result<(), SlurmError> {
        let signal_seconds = self.signal_seconds;
        match self.time {
            Some(time) if time.seconds() <= u64::from(signal_seconds) => Err(SlurmError::Time { time, signal_seconds }),
            _ => Ok(()),
        }
    }
}

/// A name that stands in an option of sbatch as it is: letters, digits, `.`, `_`, `:`, `,`, `@`, `+` and `-`, the latter
/// not in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word(String);

impl Word {
    /// This text, with `-` for every character that may not stand in one.
    pub fn resembling(text: &str) -> Word {
        let fitting: String = text.chars().map(|c| if fits(c) { c } else { '-' }).collect();
        match fitting.trim_start_matches('-') {
            "" => Word("safelmm".to_owned()),
            word => Word(word.to_owned()),
        }
    }
}

fn fits(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._:,@+-".contains(c)
}

impl FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Word, String> {
        if text.is_empty() || text.starts_with('-') || !text.chars().all(fits) {
            return Err("expected letters, digits and . _ : , @ + -, beginning with none of the dashes".to_owned());
        }
        Ok(Word(text.to_owned()))
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A time limit in the forms that sbatch takes (`--time` in its manual), shown as `DAYS-HOURS:MINUTES:SECONDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimit(u64);

impl TimeLimit {
    /// Its length in seconds.
    pub fn seconds(self) -> u64 {
        self.0
    }
}

impl FromStr for TimeLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<TimeLimit, String> {
        let expected =
            || "expected MINUTES[:SECONDS], HOURS:MINUTES:SECONDS or DAYS-HOURS[:MINUTES[:SECONDS]]".to_owned();
        let number = |part: &str| part.parse::<u32>().map(u64::from).map_err(|_| expected());
        let (days, rest) = match text.split_once('-') {
            Some((days, rest)) => (Some(number(days)?), rest),
            None => (None, text),
        };
        let parts = rest.split(':').map(number).collect::<Result<Vec<u64>, String>>()?;
        let seconds = match (days, &parts[..]) {
            (None, [minutes]) => minutes * 60,
            (None, [minutes, seconds]) => minutes * 60 + seconds,
            (Some(_), [hours]) => hours * 3600,
            (Some(_), [hours, minutes]) => hours * 3600 + minutes * 60,
            (_, [hours, minutes, seconds]) => hours * 3600 + minutes * 60 + seconds,
            _ => return Err(expected()),
        };
        match seconds + days.unwrap_or(0) * 86_400 {
            0 => Err("expected more than no time".to_owned()),
            seconds => Ok(TimeLimit(seconds)),
        }
    }
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0;
        write!(f, "{}-{:02}:{:02}:{:02}", s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limits_are_those_of_sbatch() {
        for (text, shown) in [
            ("90", "0-01:30:00"),
            ("1:30", "0-00:01:30"),
            ("24:00:00", "1-00:00:00"),
            ("2-12", "2-12:00:00"),
            ("1-0:30", "1-00:30:00"),
            ("1-02:03:04", "1-02:03:04"),
        ] {
            assert_eq!(text.parse::<TimeLimit>().unwrap().to_string(), shown, "{text}");
        }
        for text in ["", "0", "-1", "1:2:3:4", "1-2:3:4:5", "1h", "1-", "12 ", "1\n2", "99999999999"] {
            assert!(text.parse::<TimeLimit>().is_err(), "{text}");
        }
    }

    #[test]
    fn words_are_never_options_nor_several_words() {
        for text in ["", "-n", "two words", "a\n#SBATCH --uid=0", "a#b", "'", "ü"] {
            assert!(text.parse::<Word>().is_err(), "{text}");
            assert!(Word::resembling(text).to_string().parse::<Word>().is_ok(), "{text}");
        }
        assert_eq!(Word::resembling("--my run/7b").to_string(), "my-run-7b");
        assert_eq!("a100:4".parse::<Word>().unwrap().to_string(), "a100:4");
    }
}
