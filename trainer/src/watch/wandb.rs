//! An offline run as the `wandb` library leaves it: `offline-run-DATE-ID/run-ID.wandb`, a log of protocol buffers
//! (`wandb/proto/wandb_internal.proto`) in the framing of LevelDB's log with W&B's header, which `wandb sync` reads.
//!
//! Compatible: the run's name, project and configuration, every line of the log as history, the last one as summary, the
//! end. Not written: system metrics, console output, code, media, artifacts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use prost::Message;
use serde_json::{Map, Value};

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(int64, tag = "1")]
    num: i64,
    #[prost(oneof = "Kind", tags = "2, 3, 17, 18, 21")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "2")]
    History(History),
    #[prost(message, tag = "3")]
    Summary(Items),
    #[prost(message, tag = "17")]
    Run(Run),
    #[prost(message, tag = "18")]
    Exit(Exit),
    #[prost(message, tag = "21")]
    Header(Header),
}

#[derive(Clone, PartialEq, Message)]
struct History {
    #[prost(message, repeated, tag = "1")]
    item: Vec<Item>,
    #[prost(message, optional, tag = "2")]
    step: Option<Step>,
}

#[derive(Clone, PartialEq, Message)]
struct Step {
    #[prost(int64, tag = "1")]
    num: i64,
}

/// Summaries and configurations have their items at the same place.
#[derive(Clone, PartialEq, Message)]
struct Items {
    #[prost(message, repeated, tag = "1")]
    update: Vec<Item>,
}

#[derive(Clone, PartialEq, Message)]
struct Item {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "16")]
    value_json: String,
}

#[derive(Clone, PartialEq, Message)]
struct Run {
    #[prost(string, tag = "1")]
    run_id: String,
    #[prost(string, tag = "3")]
    project: String,
    #[prost(message, optional, tag = "4")]
    config: Option<Items>,
    #[prost(string, tag = "8")]
    display_name: String,
    #[prost(message, optional, tag = "17")]
    start_time: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Exit {
    #[prost(int32, tag = "1")]
    exit_code: i32,
    #[prost(int32, tag = "2")]
    runtime: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(message, optional, tag = "1")]
    version_info: Option<Version>,
}

#[derive(Clone, PartialEq, Message)]
struct Version {
    #[prost(string, tag = "1")]
    producer: String,
    #[prost(string, tag = "2")]
    min_consumer: String,
}

/// What is exported.
pub struct Export<'a> {
    /// The run's name.
    pub name: &'a str,
    /// The project that it belongs to.
    pub project: &'a str,
    /// The run's configuration.
    pub config: &'a Map<String, Value>,
    /// Lines of `log.jsonl`, each with its `step`.
    pub history: &'a [Map<String, Value>],
    /// When it began, in seconds since 1970.
    pub started: u64,
}

/// Writes an offline run into `folder` and returns its own folder, the argument of `wandb sync`.
///
/// # Errors
/// Names the file.
pub fn write(folder: &Path, export: &Export<'_>) -> Result<PathBuf, (PathBuf, io::Error)> {
    let id = format!("{:08x}", crc32fast(&[export.name.as_bytes(), &export.started.to_le_bytes()]));
    let run = folder.join(format!("offline-run-{}-{id}", date(export.started)));
    let file = run.join(format!("run-{id}.wandb"));
    let items = |map: &Map<String, Value>| {
        map.iter().map(|(key, value)| Item { key: key.clone(), value_json: value.to_string() }).collect()
    };
    // A configuration's values are wrapped, as wandb's own file has them.
    let config = Items { update: items(export.config) };
    let version = Version { producer: "0.18.0".to_owned(), min_consumer: "0.10.0".to_owned() };
    let mut kinds = vec![
        Kind::Header(Header { version_info: Some(version) }),
        Kind::Run(Run {
            run_id: id,
            project: export.project.to_owned(),
            config: Some(config),
            display_name: export.name.to_owned(),
            start_time: Some(Timestamp { seconds: export.started as i64 }),
        }),
    ];
    for line in export.history {
        let step = line.get("step").and_then(Value::as_i64).unwrap_or(0);
        let mut line = line.clone();
        line.insert("_step".to_owned(), step.into());
        kinds.push(Kind::History(History { item: items(&line), step: Some(Step { num: step }) }));
    }
    let last = export.history.last();
    kinds.push(Kind::Summary(Items { update: last.map(items).unwrap_or_default() }));
    let runtime = last.and_then(|line| line.get("seconds")?.as_f64()).unwrap_or(0.0);
    kinds.push(Kind::Exit(Exit { exit_code: 0, runtime: runtime as i32 }));
    let mut log = Log::new();
    for (i, kind) in kinds.into_iter().enumerate() {
        log.add(&Record { num: i as i64 + 1, kind: Some(kind) }.encode_to_vec());
    }
    fs::create_dir_all(&run).map_err(|e| (run.clone(), e))?;
    fs::write(&file, log.bytes).map_err(|e| (file, e))?;
    Ok(run)
}

/// The log: blocks of 32 KiB with records that are cut where a block ends (`wandb/sdk/internal/datastore.py`, after
/// LevelDB's log format).
struct Log {
    bytes: Vec<u8>,
}

const BLOCK: usize = 32_768;
const HEADER: usize = 7;

impl Log {
    fn new() -> Log {
        let mut bytes = b":W&B".to_vec();
        bytes.extend(0xbee1_u16.to_le_bytes());
        bytes.push(0);
        Log { bytes }
    }

    fn add(&mut self, mut data: &[u8]) {
        let (full, first, middle, last) = (1_u8, 2_u8, 3_u8, 4_u8);
        let mut begun = false;
        loop {
            let mut room = BLOCK - self.bytes.len() % BLOCK;
            if room < HEADER {
                self.bytes.extend(std::iter::repeat_n(0, room));
                room = BLOCK;
            }
            let (part, rest) = data.split_at(data.len().min(room - HEADER));
            let kind = match (begun, rest.is_empty()) {
                (false, true) => full,
                (false, false) => first,
                (true, false) => middle,
                (true, true) => last,
            };
            self.bytes.extend(crc32fast(&[&[kind], part]).to_le_bytes());
            self.bytes.extend((part.len() as u16).to_le_bytes());
            self.bytes.push(kind);
            self.bytes.extend(part);
            (data, begun) = (rest, true);
            if data.is_empty() {
                return;
            }
        }
    }
}

fn crc32fast(parts: &[&[u8]]) -> u32 {
    let mut hasher = ::crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// `YYYYMMDD_HHMMSS` in UTC (Howard Hinnant's `civil_from_days`).
fn date(seconds: u64) -> String {
    let (days, rest) = ((seconds / 86_400) as i64 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}_{:02}{:02}{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "19700101_000000");
        assert_eq!(date(951_782_400 + 3661), "20000229_010101");
    }

    /// Reads a log back by the format's own rules.
    fn records(bytes: &[u8]) -> Vec<Record> {
        assert_eq!(&bytes[..7], b":W&B\xe1\xbe\0");
        let (mut at, mut whole, mut records) = (7, Vec::new(), Vec::new());
        while at < bytes.len() {
            if BLOCK - at % BLOCK < HEADER {
                at += BLOCK - at % BLOCK;
                continue;
            }
            let length = u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]) as usize;
            let (kind, data) = (bytes[at + 6], &bytes[at + HEADER..at + HEADER + length]);
            assert_eq!(bytes[at..at + 4], crc32fast(&[&[kind], data]).to_le_bytes());
            whole.extend(data);
            if kind == 1 || kind == 4 {
                records.push(Record::decode(&whole[..]).unwrap());
                whole.clear();
            }
            at += HEADER + length;
        }
        records
    }

    #[test]
    fn a_run_with_records_over_many_blocks_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let line = |step: usize, size: usize| {
            let text = format!("{{\"step\":{step},\"loss\":2.5,\"seconds\":7.9,\"note\":\"{}\"}}", "x".repeat(size));
            serde_json::from_str::<Map<String, Value>>(&text).unwrap()
        };
        // Sizes that end near the end of a block in every way.
        let history: Vec<_> = (1..40).map(|step| line(step, step * 2503 % 90_000)).collect();
        let config = serde_json::from_str(r#"{"train": {"steps": 40}}"#).unwrap();
        let export = Export { name: "tiny", project: "p", config: &config, history: &history, started: 1_700_000_000 };
        let run = write(folder.path(), &export).unwrap();
        let file = fs::read_dir(&run).unwrap().next().unwrap().unwrap().path();
        let records = records(&fs::read(file).unwrap());
        assert_eq!(records.len(), 2 + 39 + 2);
        assert!(records.iter().enumerate().all(|(i, r)| r.num == i as i64 + 1));
        let Some(Kind::History(history)) = &records[2 + 37].kind else { panic!("no history") };
        assert_eq!(history.step, Some(Step { num: 38 }));
        assert_eq!(history.item[3].value_json.len(), 38 * 2503 % 90_000 + 2);
        let Some(Kind::Exit(exit)) = &records[42].kind else { panic!("no end") };
        assert_eq!((exit.exit_code, exit.runtime), (0, 7));
        assert!(run.file_name().unwrap().to_string_lossy().starts_with("offline-run-20231114_221320-"));
    }
}
