//! TensorBoard's event files: records of TFRecord framing that hold protocol buffers (`tensorflow/core/util/event.proto`,
//! `tensorflow/core/framework/summary.proto`), of which scalars and session starts are all that is needed here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    /// 1: START, at which TensorBoard drops what it has of later steps.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The folder of event files in a run's folder.
pub const FOLDER: &str = "tensorboard";

/// An open event file.
pub struct TensorBoard {
    file: PathBuf,
    out: File,
}

impl TensorBoard {
    /// Begins an event file for a run that goes on behind update `step`; TensorBoard drops what older files say of later
    /// ones.
    ///
    /// # Errors
    /// Names the file.
    pub fn open(run: &Path, step: usize) -> Result<TensorBoard, (PathBuf, io::Error)> {
        let folder = run.join(FOLDER);
        fs::create_dir_all(&folder).map_err(|e| (folder.clone(), e))?;
        // Files are read in the order of their names, and a run may be started twice within a second.
        let time = now();
        let number = fs::read_dir(&folder).map_or(0, Iterator::count);
        let file = folder.join(format!("events.out.tfevents.{:010}.safelmm.{number:05}", time as u64));
        let out = OpenOptions::new().create_new(true).write(true).open(&file).map_err(|e| (file.clone(), e))?;
        let mut board = TensorBoard { file, out };
        board.event(0, What::FileVersion("brain.Event:2".to_owned()))?;
        board.event(step + 1, What::SessionLog(SessionLog { status: 1 }))?;
        Ok(board)
    }

    /// Adds scalars of one update, by their tags.
    ///
    /// # Errors
    /// Names the file.
    pub fn scalars(&mut self, step: usize, scalars: &[(String, f64)]) -> Result<(), (PathBuf, io::Error)> {
        let value = scalars.iter().map(|(tag, value)| Value { tag: tag.clone(), simple_value: *value as f32 });
        self.event(step, What::Summary(Summary { value: value.collect() }))
    }

    fn event(&mut self, step: usize, what: What) -> Result<(), (PathBuf, io::Error)> {
        let event = Event { wall_time: now(), step: step as i64, what: Some(what) };
        self.out.write_all(&record(&event.encode_to_vec())).map_err(|e| (self.file.clone(), e))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A TFRecord: length, its checksum, data, its checksum (`tensorflow/core/lib/io/record_writer.h`).
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked(crc32c(&length)).to_le_bytes());
    record.extend(data);
    record.extend(masked(crc32c(data)).to_le_bytes());
    record
}

/// Checksums beside data that holds checksums are rotated and moved (`tensorflow/core/lib/hash/crc32c.h`).
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with Castagnoli's polynomial (RFC 3720, section 12.1), reflected.
fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let (mut crc, mut bit) = (byte as u32, 0);
            while bit < 8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    !data.iter().fold(u32::MAX, |crc, byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        // RFC 3720, section B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn an_event_file_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::open(folder.path(), 4).unwrap();
        board.scalars(5, &[("loss".to_owned(), 2.5), ("rate".to_owned(), 1e-3)]).unwrap();
        assert!(TensorBoard::open(folder.path(), 4).is_ok(), "a second file within the same second");
        let mut bytes = &fs::read(&board.file).unwrap()[..];
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            assert_eq!(record(&bytes[12..12 + length]), &bytes[..length + 16]);
            events.push(Event::decode(&bytes[12..12 + length]).unwrap());
            bytes = &bytes[length + 16..];
        }
        assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".to_owned())));
        assert_eq!((events[1].step, &events[1].what), (5, &Some(What::SessionLog(SessionLog { status: 1 }))));
        let Some(What::Summary(summary)) = &events[2].what else { panic!("{:?}", events[2]) };
        assert_eq!((events[2].step, &summary.value[0].tag[..], summary.value[0].simple_value), (5, "loss", 2.5));
    }
}
