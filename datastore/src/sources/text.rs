//! Plain text and Markdown: a document for each file.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Documents, Raw, SourceDefaults, utf8};
use crate::document::{Document, DocumentError};

/// Whether a file is plain text or Markdown by its name.
pub(super) fn is_text(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    matches!(extension.as_deref(), Some("txt" | "md" | "markdown"))
}

/// One file as one document; its id is its name.
pub(super) fn file(path: &Path, defaults: SourceDefaults) -> Result<Documents, DocumentError> {
    let id = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let path = path.to_owned();
    Ok(Box::new(std::iter::once_with(move || read(&path, id, &defaults))))
}

/// All files of a folder and those in it, by their paths relative to it, which are their ids.
pub(super) fn folder(folder: &Path, defaults: SourceDefaults) -> Result<Documents, DocumentError> {
    let mut files = Vec::new();
    visit(folder, String::new(), &mut files)?;
    files.sort();
    Ok(Box::new(files.into_iter().map(move |(id, path)| read(&path, id, &defaults))))
}

fn visit(folder: &Path, prefix: String, files: &mut Vec<(String, PathBuf)>) -> Result<(), DocumentError> {
    let error = |source| DocumentError::Read { file: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(error)? {
        let entry = entry.map_err(error)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // What begins with a point is for programs. Links are not followed: they may lead out of the folder, or in circles.
        let kind = entry.file_type().map_err(error)?;
        if name.starts_with('.') || kind.is_symlink() {
            continue;
        }
        match kind.is_dir() {
            true => visit(&entry.path(), format!("{prefix}{name}/"), files)?,
            false if is_text(&entry.path()) => files.push((format!("{prefix}{name}"), entry.path())),
            false => {}
        }
    }
    Ok(())
}

fn read(path: &Path, id: String, defaults: &SourceDefaults) -> Result<Document, DocumentError> {
    let place = || path.display().to_string();
    let bytes = fs::read(path).map_err(|source| DocumentError::Read { file: path.to_owned(), source })?;
    let text = utf8(bytes, place)?;
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    let title = heading(&text).unwrap_or_default();
    Raw { id, text, title: Some(title), ..Raw::default() }.complete(defaults, place)
}

/// The first heading: `# Title`, or a line over one of `=`.
fn heading(text: &str) -> Option<String> {
    let mut lines = text.lines().take(200).map(str::trim_end).peekable();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("# ") {
            return Some(title.trim_end_matches('#').trim().to_owned());
        }
        let under = lines.peek().is_some_and(|next| next.len() >= 3 && next.bytes().all(|b| b == b'='));
        if under && !line.trim().is_empty() {
            return Some(line.trim().to_owned());
        }
    }
    None
}
