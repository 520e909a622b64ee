//! Verification: every file is read and held against its checksum.

use std::fs;
use std::path::Path;

use super::{Inner, Store, VerifyReport, folder};
use crate::error::{StoreError, damaged, io_error};
use crate::manifest::{self, Manifest};
use crate::receipt::Signatory;
use crate::segment::Segment;

pub(super) fn verify(folder: &Path) -> Result<VerifyReport, StoreError> {
    let mut report = VerifyReport::default();
    let (manifest, lock) = match folder::open(folder) {
        Ok(opened) => opened,
        Err(error @ (StoreError::NoStore(_) | StoreError::Locked(_) | StoreError::Io { .. })) => return Err(error),
        Err(error) => {
            report.problems.push(error.to_string());
            return Ok(report);
        }
    };
    check_root(folder, &mut report)?;
    if let Err(error) = Signatory::open(&folder.join(folder::KEY), &manifest.public_key) {
        report.problems.push(error.to_string());
    }
    if let Err(error) = folder::check_closed(folder, manifest.generation) {
        report.problems.push(error.to_string());
    }
    let place = folder::generation(folder, manifest.generation);
    if let Ok(found) = folder::meta_files(&place) {
        report.files += found.len();
        report.bytes += found.values().map(|digest| digest.bytes).sum::<u64>();
    }
    for entry in &manifest.segments {
        check_segment(&folder::segment(folder, entry.number), &mut report);
    }
    if !report.is_clean() {
        return Ok(report);
    }
    // The files are as they were written: now what is in them.
    drop(lock);
    match Store::open(folder) {
        Ok(store) => {
            report.documents = store.inner.read().catalog.len();
            check_whole(&store.inner, &mut report)?;
            store.close()?;
        }
        Err(error) => report.problems.push(error.to_string()),
    }
    Ok(report)
}

pub(super) fn verify_open(inner: &Inner) -> Result<VerifyReport, StoreError> {
    // Nothing is written and no folder deleted while they are read.
    let _maintenance = inner.maintain();
    let mut report = VerifyReport::default();
    let state = inner.read();
    match Manifest::read(inner.folder()) {
        Ok(on_disk) if on_disk == state.manifest => {}
        Ok(_) => report.problems.push(damaged(inner.folder(), "the manifest is not the one in memory").to_string()),
        Err(error) => report.problems.push(error.to_string()),
    }
    match state.catalog.recount() {
        Ok(digest) if digest == state.manifest.catalogue => {}
        Ok(_) => {
            let place = folder::generation(inner.folder(), state.manifest.generation);
            report.problems.push(damaged(&place, "its records are not those that the manifest counts").to_string());
        }
        Err(error) => report.problems.push(error.to_string()),
    }
    report.documents = state.catalog.len();
    let folders: Vec<_> = state.segments.iter().map(|segment| segment.folder().to_owned()).collect();
    drop(state);
    for folder in folders {
        check_segment(&folder, &mut report);
    }
    check_whole(inner, &mut report)?;
    Ok(report)
}

/// Whether every live document is in exactly one segment, with the tokens that its record says.
fn check_whole(inner: &Inner, report: &mut VerifyReport) -> Result<(), StoreError> {
    let state = inner.read();
    let mut problems = Vec::new();
    state.snapshot().live(inner.folder(), &mut |number, record| {
        let places: Vec<_> = state.segments.iter().filter_map(|s| Some((s, s.find(number)?))).collect();
        let fits = match places[..] {
            [(segment, document)] => {
                let tokens = segment.range(document).map_or(0, |range| range.len() as u64);
                tokens == record.tokens && segment.entry.group == record.group() && segment.text(document).is_some()
            }
            _ => false,
        };
        if !fits {
            problems.push(format!("document {:?}: its segment does not hold what its record says", record.id));
        }
    })?;
    report.problems.extend(problems);
    Ok(())
}

fn check_segment(folder: &Path, report: &mut VerifyReport) {
    let (files, bytes) = Segment::verify(folder, &mut report.problems);
    report.files += files;
    report.bytes += bytes;
}

/// Whether there is anything in the folder that nobody wrote.
fn check_root(folder: &Path, report: &mut VerifyReport) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let entry = entry.map_err(io_error(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let bytes = entry.metadata().map_err(io_error(folder))?.len();
        let known = folder::NAMES.contains(&&*name) || name == manifest::FILE;
        if !known || (name == folder::LOCK && bytes > 0) {
            report.problems.push(damaged(&entry.path(), "nobody wrote this").to_string());
        }
        if entry.path().is_file() {
            report.files += 1;
            report.bytes += bytes;
        }
    }
    Ok(())
}
