//! Where documents come from.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parquet::data_type::{BoolType, ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use safelmm_datastore::{Document, DocumentError, Rating, SourceDefaults, sources};

fn read(path: &Path, defaults: &SourceDefaults) -> Vec<Result<Document, DocumentError>> {
    sources::open(path, defaults).unwrap().collect()
}

fn licensed() -> SourceDefaults {
    SourceDefaults {
        license: Some("CC-BY-NC-4.0".parse().unwrap()),
        rating: Some(Rating::PG),
        author: "The authors".to_owned(),
        lang: "en".to_owned(),
        ..SourceDefaults::default()
    }
}

const LINES: &str = r#"{"id": "a", "text": "One.", "language": "de", "license": "CC0-1.0", "rating": "R"}

{"id": "b", "text": "Two."}
"#;

#[test]
fn json_lines_plain_and_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("a.jsonl"), LINES).unwrap();
    let mut gz = flate2::write::GzEncoder::new(File::create(path("a.jsonl.gz")).unwrap(), flate2::Compression::fast());
    gz.write_all(LINES.as_bytes()).unwrap();
    gz.finish().unwrap();
    std::fs::write(path("a.jsonl.zst"), zstd::encode_all(LINES.as_bytes(), 3).unwrap()).unwrap();
    for name in ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"] {
        let documents: Vec<Document> = read(&path(name), &licensed()).into_iter().map(Result::unwrap).collect();
        let said: Vec<_> = documents.iter().map(|d| (&*d.id, d.license.expression(), d.rating, &*d.lang)).collect();
        let expected = [("a", "CC0-1.0", Some(Rating::R), "de"), ("b", "CC-BY-NC-4.0", Some(Rating::PG), "en")];
        assert_eq!(said, expected, "{name}");
        let unnamed = read(&path(name), &SourceDefaults::default());
        let message = unnamed[1].as_ref().unwrap_err().to_string();
        assert!(unnamed[0].is_ok() && message.contains("line 3") && message.contains("\"b\""), "{message}");
        assert!(message.contains("name one for the whole source"), "{message}");
    }
    // A stream that is cut short ends with an error, once.
    let bytes = std::fs::read(path("a.jsonl.gz")).unwrap();
    std::fs::write(path("cut.jsonl.gz"), &bytes[..bytes.len() / 2]).unwrap();
    let results = read(&path("cut.jsonl.gz"), &licensed());
    assert!(results.last().unwrap().is_err() && results.len() < 4);
}

#[test]
fn broken_lines_do_not_end_a_source() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let mut bytes = b"{\"id\": \"x\", \"text\": \"\xff\"}\n{nonsense}\n".to_vec();
    bytes.extend(LINES.as_bytes());
    std::fs::write(&path, bytes).unwrap();
    let results = read(&path, &licensed());
    assert_eq!(results.len(), 4);
    let messages: Vec<String> = results.iter().filter_map(|r| r.as_ref().err()).map(|e| e.to_string()).collect();
    assert!(messages[0].contains("line 1") && messages[0].contains("UTF-8"), "{messages:?}");
    assert!(messages[1].contains("line 2"), "{messages:?}");
    assert!(results.iter().all(|r| r.as_ref().err().is_none_or(|e| !e.ends_source())));
}

#[test]
fn folders_of_text() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("b/two.md", b"\n# The Title #\n\nText.");
    write("a.txt", "\u{feff}Over\n====\nText.".as_bytes());
    write("c.txt", b"No heading.");
    write("d.txt", b"\xff\xfe");
    write("picture.png", b"x");
    write(".hidden/e.txt", b"x");
    let results = read(folder.path(), &licensed());
    let said: Vec<_> = results.iter().flatten().map(|d| (&*d.id, &*d.title, &*d.author)).collect();
    let author = "The authors";
    assert_eq!(said, [("a.txt", "Over", author), ("b/two.md", "The Title", author), ("c.txt", "", author)]);
    assert!(results[0].as_ref().unwrap().text.starts_with("Over"));
    assert!(results[3].as_ref().unwrap_err().to_string().contains("d.txt"));
    let message = read(folder.path(), &SourceDefaults::default())[0].as_ref().unwrap_err().to_string();
    assert!(message.contains("a.txt") && message.contains("license"), "{message}");
    assert_eq!(read(&folder.path().join("c.txt"), &licensed())[0].as_ref().unwrap().id, "c.txt");
    let message = sources::open(&folder.path().join("picture.png"), &licensed()).err().unwrap().to_string();
    assert!(message.contains("picture.png") && message.contains(".parquet"), "{message}");
}

fn write_table(path: &Path, schema: &str, columns: &[&[&str]], flags: &[bool]) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut number = 0;
    while let Some(mut column) = group.next_column().unwrap() {
        match columns.get(number) {
            Some(values) => {
                let values: Vec<ByteArray> = values.iter().map(|v| ByteArray::from(*v)).collect();
                column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
            }
            None => {
                let levels = vec![0; flags.len()];
                column.typed::<BoolType>().write_batch(flags, Some(&levels), Some(&levels)).unwrap();
            }
        }
        column.close().unwrap();
        number += 1;
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_tables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let schema = "message documents { required binary text (UTF8); required binary id (UTF8); \
                  required binary license (UTF8); required binary other (UTF8);
                  required group permissions { required boolean retrieve; } }";
    let columns: [&[&str]; 4] = [&["One.", "Two."], &["a", "b"], &["CC0-1.0", "nonsense of a kind"], &["x", "y"]];
    write_table(&path, schema, &columns, &[false, true]);
    let results = read(&path, &licensed());
    let first = results[0].as_ref().unwrap();
    assert_eq!((&*first.id, &*first.text, first.license.expression()), ("a", "One.", "CC0-1.0"));
    assert!(!first.retrieve() && first.rating == Some(Rating::PG));
    let message = results[1].as_ref().unwrap_err().to_string();
    assert!(message.contains("row 2") && message.contains("SPDX"), "{message}");
    let short = folder.path().join("b.parquet");
    write_table(&short, "message documents { required binary text (UTF8); }", &[&["x"]], &[]);
    let message = sources::open(&short, &licensed()).err().unwrap().to_string();
    assert!(message.contains("no column \"id\""), "{message}");
    // A damaged table is an error, wherever it is damaged.
    let bytes = std::fs::read(&path).unwrap();
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x5a;
        std::fs::write(&short, &damaged).unwrap();
        let _ = sources::open(&short, &licensed()).map(|documents| documents.take(100).count());
        std::fs::write(&short, &bytes[..at]).unwrap();
        assert!(sources::open(&short, &licensed()).is_err());
    }
}
