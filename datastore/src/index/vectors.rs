//! The vectors themselves: 16-bit floats, row after row, in `vectors.f16`.

use std::path::Path;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::IndexError;
use super::file::{FileReader, FileWriter};

const MAGIC: [u8; 8] = *b"SLMMVECS";
pub const FILE: &str = "vectors.f16";
/// The largest dimension: distances of codes, at most 255² each component, must fit 31 bits.
const MAX_DIM: usize = 16_384;

/// Writes rows (f32 in, f16 on disk) into `vectors.f16` of a folder; `build` then adds the index.
pub struct VectorWriter {
    file: FileWriter,
    dim: usize,
    rows: usize,
    buffer: Vec<f16>,
}

impl VectorWriter {
    /// Begins the file, in a folder that is made where it is missing. What was there before is replaced.
    ///
    /// # Errors
    /// A dimension of 0 or above 16384, and those of the file system.
    pub fn create(dir: &Path, dim: usize) -> Result<VectorWriter, IndexError> {
        check_dim(dim)?;
        std::fs::create_dir_all(dir).map_err(IndexError::io("create", dir))?;
        super::remove_index(dir)?;
        let file = FileWriter::create(&dir.join(FILE), MAGIC, [dim as u32, 0, 0])?;
        Ok(VectorWriter { file, dim, rows: 0, buffer: Vec::new() })
    }

    /// Appends rows: `rows` holds a multiple of `dim` components.
    ///
    /// # Errors
    /// When the length is no multiple of the dimension, when a component does not fit a 16-bit float (the row is named,
    /// nothing of `rows` is written), when there are 2³² − 2 rows already, and those of the file system.
    pub fn push(&mut self, rows: &[f32]) -> Result<(), IndexError> {
        if !rows.len().is_multiple_of(self.dim) {
            let expected = format!("a multiple of the dimension {}", self.dim);
            return Err(IndexError::Dimension { got: rows.len(), expected });
        }
        let count = rows.len() / self.dim;
        if count > (u32::MAX - 1) as usize - self.rows {
            return Err(IndexError::Parameter {
                name: "the number of rows",
                value: self.rows + count,
                expected: "at most 4294967294 in an index; use several",
            });
        }
        self.buffer.clear();
        self.buffer.resize(rows.len(), f16::ZERO);
        self.buffer.convert_from_f32_slice(rows);
        if let Some(at) = self.buffer.iter().position(|x| !x.is_finite()) {
            return Err(IndexError::NonFinite { row: self.rows + at / self.dim, value: rows[at] });
        }
        self.file.write(&self.buffer)?;
        self.rows += count;
        Ok(())
    }

    /// Rows written so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Makes the file valid and durable, and returns the number of rows.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(self) -> Result<usize, IndexError> {
        self.file.finish(self.rows)?;
        Ok(self.rows)
    }
}

fn check_dim(dim: usize) -> Result<(), IndexError> {
    if dim == 0 || dim > MAX_DIM {
        return Err(IndexError::Parameter { name: "the dimension", value: dim, expected: "1 to 16384" });
    }
    Ok(())
}

/// The mapped vectors.
pub struct Vectors {
    file: FileReader,
    place: usize,
    rows: usize,
    dim: usize,
}

impl Vectors {
    pub fn open(dir: &Path) -> Result<Vectors, IndexError> {
        let file = FileReader::open(&dir.join(FILE), MAGIC)?;
        let (rows, dim) = (file.header.rows as usize, file.header.numbers[0] as usize);
        check_dim(dim).map_err(|e| IndexError::damaged(file.path(), e.to_string()))?;
        let bytes = rows.checked_mul(dim * size_of::<f16>());
        let [place] = file.sections([bytes])?;
        Ok(Vectors { file, place, rows, dim })
    }

    /// For searches that read a few rows; scans are better off without.
    pub fn advise_random(&self) {
        self.file.mapping().advise_random();
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All rows, one after another: `[rows, dim]`.
    pub fn all(&self) -> &[f16] {
        self.file.view(self.place, self.rows * self.dim)
    }

    /// One row: `[dim]`.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: u32) -> &[f16] {
        &self.all()[row as usize * self.dim..][..self.dim]
    }

    /// Whether every component is finite, as the writer made sure; a damaged file may hold anything.
    pub fn check_finite(&self) -> Result<(), IndexError> {
        match self.all().iter().position(|x| !x.is_finite()) {
            Some(at) => Err(IndexError::NonFinite { row: at / self.dim, value: self.all()[at].to_f32() }),
            None => Ok(()),
        }
    }
}
