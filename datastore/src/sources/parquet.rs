//! Parquet tables: a document for each row, its members in columns of their names.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;

use super::{Documents, Raw, SourceDefaults};
use crate::document::{Document, DocumentError, Permissions};

/// Columns that are read; all others are passed over.
const COLUMNS: [&str; 12] = [
    "id",
    "text",
    "license",
    "lang",
    "language",
    "source",
    "title",
    "author",
    "url",
    "rights_holder",
    "rating",
    "permissions",
];

/// The documents of a table.
pub(super) fn open(path: &Path, defaults: SourceDefaults) -> Result<Documents, DocumentError> {
    let file = File::open(path).map_err(|source| DocumentError::Read { file: path.to_owned(), source })?;
    let rows = guard(path, || {
        let reader = SerializedFileReader::new(file).map_err(|e| e.to_string())?;
        let schema = reader.metadata().file_metadata().schema();
        let columns: Vec<_> = schema.get_fields().iter().filter(|f| COLUMNS.contains(&f.name())).cloned().collect();
        for needed in ["id", "text"] {
            if !columns.iter().any(|column| column.name() == needed) {
                return Err(format!("it has no column {needed:?}: expected id, text, and license unless one is named"));
            }
        }
        let projection = Type::group_type_builder(schema.name()).with_fields(columns).build();
        let projection = projection.map_err(|e| e.to_string())?;
        RowIter::from_file_into(Box::new(reader)).project(Some(projection)).map_err(|e| e.to_string())
    })?;
    Ok(Box::new(Rows { path: path.to_owned(), defaults, rows, number: 0, ended: false }))
}

struct Rows {
    path: PathBuf,
    defaults: SourceDefaults,
    rows: RowIter<'static>,
    number: usize,
    ended: bool,
}

impl Iterator for Rows {
    type Item = Result<Document, DocumentError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let rows = &mut self.rows;
        match guard(&self.path, || rows.next().transpose().map_err(|e| e.to_string())) {
            Ok(row) => {
                self.number += 1;
                row.map(|row| self.document(row))
            }
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}

impl Rows {
    fn document(&self, row: Row) -> Result<Document, DocumentError> {
        let mut raw = Raw::default();
        for (name, field) in row.into_columns() {
            // Only what is said of one document is wrong then, not the table.
            let wrong = |what: String| {
                let document = format!("{}, row {}", self.path.display(), self.number);
                DocumentError::Refused { document, what: format!("column {name:?}: {what}") }
            };
            if name == "permissions" {
                raw.permissions = permissions(field).map_err(wrong)?;
                continue;
            }
            let Some(value) = text(field).map_err(wrong)? else { continue };
            match &*name {
                "id" => raw.id = value,
                "text" => raw.text = value,
                "license" => {
                    raw.license = Some(value.parse().map_err(|e: crate::license::LicenseError| wrong(e.to_string()))?)
                }
                "rating" => {
                    raw.rating = Some(value.parse().map_err(|e: crate::rating::RatingError| wrong(e.to_string()))?)
                }
                "lang" | "language" => raw.lang = Some(value),
                "source" => raw.source = Some(value),
                "title" => raw.title = Some(value),
                "author" => raw.author = Some(value),
                "url" => raw.url = Some(value),
                "rights_holder" => raw.rights_holder = Some(value),
                _ => {}
            }
        }
        raw.complete(&self.defaults, || format!("{}, row {}", self.path.display(), self.number))
    }
}

fn text(field: Field) -> Result<Option<String>, String> {
    match field {
        Field::Null => Ok(None),
        Field::Str(text) => Ok(Some(text)),
        Field::Bytes(bytes) => String::from_utf8(bytes.data().to_vec()).map(Some).map_err(|e| e.to_string()),
        Field::Int(number) => Ok(Some(number.to_string())),
        Field::Long(number) => Ok(Some(number.to_string())),
        _ => Err("expected text".to_owned()),
    }
}

fn permissions(field: Field) -> Result<Option<Permissions>, String> {
    let columns = match field {
        Field::Null => return Ok(None),
        Field::Group(row) => row.into_columns(),
        _ => return Err("expected a group of the booleans train and retrieve".to_owned()),
    };
    let mut permissions = Permissions::default();
    for (name, field) in columns {
        let value = match field {
            Field::Null => None,
            Field::Bool(value) => Some(value),
            _ => return Err(format!("expected a boolean for {name}")),
        };
        match &*name {
            "train" => permissions.train = value,
            "retrieve" => permissions.retrieve = value,
            _ => return Err(format!("{name:?} is no permission: expected train and retrieve")),
        }
    }
    Ok(Some(permissions))
}

/// The reader trusts what a file says of itself in places: a panic becomes an error.
fn guard<T>(path: &Path, work: impl FnOnce() -> Result<T, String>) -> Result<T, DocumentError> {
    let error = |what: String| DocumentError::Table { file: path.to_owned(), what };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(error),
        Err(_) => Err(error("it is damaged: the reader of Parquet files gave up".to_owned())),
    }
}
