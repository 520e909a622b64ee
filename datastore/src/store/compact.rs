//! Merging and compaction: segments are rebuilt from stored tokens and keys, without the model.
//!
//! Compaction brings a store into a form that depends on the live documents alone: those of a group are spread over
//! 2^b segments by the hash of their ids, and stand there in the order of their ids. So a store that a document has left
//! is the same as one that it never entered, and only the segment that held it has to be rebuilt.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::commit::Change;
use super::removal::ATTEMPTS;
use super::{CompactProgress, Compacted, Inner, Numbers, State, folder};
use crate::catalog::{Addition, Catalog, Snapshot, id_hash};
use crate::error::{StoreError, damaged, io_error};
use crate::files;
use crate::gate::Group;
use crate::manifest::Manifest;
use crate::receipt::{Event, document_hash};
use crate::segment::{Segment, SegmentWriter, Stored, Target};

/// Segments of about the same size that are merged into one.
const FAN_IN: usize = 4;
/// Segments with fewer tokens count as equally small.
const SMALLEST_TIER: u32 = 4096;

/// Merges small segments of each group, tier by tier, and gives those in the middle of an addition their index.
pub(super) fn merge(inner: &Arc<Inner>, stop: &AtomicBool) -> Result<(), StoreError> {
    let passage_dim = inner.read().manifest.passage_dim;
    loop {
        // Bound first: a guard in the condition would be held through the commit.
        let sources = next_merge(&inner.read(), inner.settings.segment_tokens);
        let Some(sources) = sources else { return Ok(()) };
        let documents: Vec<Stored<'_>> = sources
            .iter()
            .flat_map(|segment| (0..segment.documents()).map(|document| Stored { segment, document }))
            .filter(|stored| !stored.segment.is_dead(stored.document))
            .collect();
        let mut change = Change::new(Addition::default());
        change.replaced = sources.iter().map(|segment| segment.entry.number).collect();
        change.segments.extend(rebuild(inner, &sources[0].entry.group, &documents, None, passage_dim, stop)?);
        let new = change.segments.first().map(|segment| segment.folder().to_owned());
        let committed = inner.commit(&mut inner.write(), change);
        if let (Err(_), Some(new), Ok(())) = (&committed, new, inner.read().check_writable()) {
            let _ = folder::remove(&new);
        }
        committed?;
    }
}

fn tier(tokens: u32) -> u32 {
    (tokens / SMALLEST_TIER).max(1).ilog(FAN_IN as u32)
}

/// The segments to merge next; `None` when all is well.
fn next_merge(state: &State, segment_tokens: u64) -> Option<Vec<Arc<Segment>>> {
    let mut groups: BTreeMap<&Group, Vec<&Arc<Segment>>> = BTreeMap::new();
    for segment in &state.segments {
        groups.entry(&segment.entry.group).or_default().push(segment);
    }
    for segments in groups.values() {
        let interim: Vec<_> = segments.iter().filter(|s| !s.entry.indexed).copied().collect();
        if !interim.is_empty() {
            return Some(up_to(interim, segment_tokens));
        }
        let mut tiers: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for segment in segments.iter().filter(|s| u64::from(s.entry.tokens) < segment_tokens) {
            tiers.entry(tier(segment.entry.tokens)).or_default().push(*segment);
        }
        let full = tiers.into_values().find(|tier| tier.len() >= FAN_IN);
        if let Some(sources) = full.map(|tier| up_to(tier, segment_tokens)).filter(|sources| sources.len() > 1) {
            return Some(sources);
        }
    }
    None
}

/// The first of some segments that together have no more than `most` tokens; one at least.
fn up_to(segments: Vec<&Arc<Segment>>, most: u64) -> Vec<Arc<Segment>> {
    let mut total = 0;
    let fits = |segment: &&Arc<Segment>| {
        let first = total == 0;
        total += u64::from(segment.entry.tokens);
        first || total <= most
    };
    segments.into_iter().take_while(fits).cloned().collect()
}

/// Writes documents that stand in other segments into a new one; `None` where there are none.
fn rebuild(
    inner: &Inner,
    group: &Group,
    documents: &[Stored<'_>],
    bucket: Option<(u32, u32)>,
    passage_dim: Option<usize>,
    stop: &AtomicBool,
) -> Result<Option<Arc<Segment>>, StoreError> {
    if documents.is_empty() {
        return Ok(None);
    }
    let number = inner.next_segment();
    let place = inner.segment_folder(number);
    let part = place.with_extension("part");
    let write = || {
        let mut writer = SegmentWriter::create(&part, group, &inner.settings, passage_dim)?;
        for stored in documents {
            if stop.load(Ordering::Relaxed) {
                return Err(StoreError::Stopped);
            }
            writer.copy(*stored, &inner.settings)?;
        }
        let target = Target { place: place.clone(), number, bucket, interim: false };
        Segment::open(&place, &writer.finish(&target, &inner.settings, stop)?)
    };
    match write() {
        Ok(segment) => Ok(Some(Arc::new(segment))),
        Err(error) => {
            let _ = folder::remove(&part);
            let _ = folder::remove(&place);
            Err(error)
        }
    }
}

/// A document that stands in a segment.
type Placed = (Arc<Segment>, u32);

/// A segment that is to be built.
struct New {
    group: Group,
    /// (bucket, buckets)
    bucket: (u32, u32),
    /// In the order of their ids.
    documents: Vec<Placed>,
}

/// What becomes of the segments of a store.
#[derive(Default)]
struct Plan {
    build: Vec<New>,
    /// Numbers of the segments that stay.
    keep: HashSet<u64>,
}

fn plan(snapshot: &Snapshot, segments: &[Arc<Segment>], inner: &Inner) -> Result<Plan, StoreError> {
    let mut ids: HashMap<u64, String> = HashMap::new();
    snapshot.live(inner.folder(), &mut |number, record| {
        ids.insert(number, record.id);
    })?;
    let mut groups: BTreeMap<Group, Vec<(String, Arc<Segment>, u32)>> = BTreeMap::new();
    for segment in segments {
        for document in 0..segment.documents() {
            let live = segment.number(document).and_then(|number| ids.remove(&number));
            if let Some(id) = live {
                groups.entry(segment.entry.group.clone()).or_default().push((id, segment.clone(), document));
            }
        }
    }
    if let Some((number, _)) = ids.into_iter().next() {
        return Err(damaged(inner.folder(), format!("document {number} of the catalogue is in no segment")));
    }
    let mut plan = Plan::default();
    for (group, documents) in groups {
        let length =
            |(_, segment, document): &(String, Arc<Segment>, u32)| segment.range(*document).map_or(0, |r| r.len());
        let tokens: u64 = documents.iter().map(|d| length(d) as u64).sum();
        let buckets = tokens.div_ceil(inner.settings.segment_tokens.max(1)).next_power_of_two().min(1 << 16) as u32;
        let mut spread: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for document in documents {
            let hash = id_hash(&document.0);
            spread
                .entry(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % buckets)
                .or_default()
                .push(document);
        }
        for (bucket, mut documents) in spread {
            let first = documents[0].1.clone();
            let whole = first.documents() as usize == documents.len()
                && documents.iter().all(|(_, segment, _)| Arc::ptr_eq(segment, &first));
            if whole && first.entry.bucket == Some((bucket, buckets)) {
                plan.keep.insert(first.entry.number);
                continue;
            }
            documents.sort_by(|a, b| a.0.cmp(&b.0));
            let documents = documents.into_iter().map(|(_, segment, document)| (segment, document)).collect();
            plan.build.push(New { group: group.clone(), bucket: (bucket, buckets), documents });
        }
    }
    Ok(plan)
}

pub(super) fn compact(
    inner: &Arc<Inner>,
    progress: &dyn Fn(CompactProgress),
    stop: &AtomicBool,
) -> Result<Compacted, StoreError> {
    let _maintenance = inner.maintain();
    let (snapshot, segments, passage_dim) = {
        let state = inner.read();
        state.check_writable()?;
        (state.snapshot(), state.segments.clone(), state.manifest.passage_dim)
    };
    let segments_before = segments.len();
    let plan = plan(&snapshot, &segments, inner)?;
    if plan.build.is_empty() && plan.keep.len() == segments_before && snapshot.dead().is_empty() {
        return Ok(Compacted { segments_before, segments_after: segments_before, ..Compacted::default() });
    }
    drop((snapshot, segments));
    let length = |(segment, document): &Placed| segment.range(*document).map_or(0, |r| r.len() as u64);
    let total = plan.build.iter().flat_map(|new| &new.documents).map(length).sum();
    let mut told = CompactProgress { done: 0, total };
    let mut built: Vec<Arc<Segment>> = Vec::new();
    let mut build = || -> Result<(), StoreError> {
        for New { group, bucket, documents } in &plan.build {
            progress(told);
            let stored: Vec<Stored<'_>> =
                documents.iter().map(|(segment, document)| Stored { segment, document: *document }).collect();
            built.extend(rebuild(inner, group, &stored, Some(*bucket), passage_dim, stop)?);
            told.done += documents.iter().map(length).sum::<u64>();
        }
        progress(told);
        Ok(())
    };
    let result = build().and_then(|()| exchange(inner, &plan.keep, &built));
    match result {
        Ok(done) => {
            // From here on the old bytes must go: that they are gone is what the receipt says. What was committed stays,
            // whatever becomes of them; the next opening tries again.
            let (catalog, place) = done.old;
            catalog.retire();
            folder::remove(&place)?;
            for number in &done.replaced {
                folder::remove(&inner.segment_folder(*number))?;
            }
            files::sync_folder(&inner.folder)?;
            Ok(Compacted { segments_before, ..done.compacted })
        }
        Err(error) => {
            if inner.read().check_writable().is_ok() {
                built.iter().for_each(|segment| drop(folder::remove(segment.folder())));
            }
            Err(error)
        }
    }
}

/// A commit that was made, and what it leaves to be deleted.
struct Exchanged {
    compacted: Compacted,
    /// The catalogue before, and its folder.
    old: (Catalog, PathBuf),
    /// Numbers of segments that are no longer part of the store.
    replaced: Numbers,
}

/// What a commit of new segments starts from.
struct Before {
    manifest: Manifest,
    snapshot: Snapshot,
    /// Dead documents that still stand in segments: they are erased the next time.
    waiting: Numbers,
    /// Hashes of the ids of those that stand in none.
    erased: Vec<String>,
    /// Numbers of the segments that go.
    replaced: Numbers,
}

impl Before {
    fn of(state: &State, inner: &Inner, keep: &HashSet<u64>, built: &[Arc<Segment>]) -> Result<Before, StoreError> {
        state.check_writable()?;
        let kept = state.segments.iter().filter(|s| keep.contains(&s.entry.number));
        let after: Vec<&Arc<Segment>> = kept.chain(built).collect();
        let dead = state.catalog.dead();
        let waiting: Numbers = dead.iter().filter(|n| after.iter().any(|s| s.find(**n).is_some())).copied().collect();
        let mut erased = Vec::new();
        for number in dead.difference(&waiting) {
            if let Some(record) = state.catalog.document(inner.folder(), *number)? {
                erased.push(document_hash(&record.id));
            }
        }
        let replaced = state.segments.iter().map(|s| s.entry.number).filter(|number| !keep.contains(number)).collect();
        Ok(Before { manifest: state.manifest.clone(), snapshot: state.snapshot(), waiting, erased, replaced })
    }
}

/// A commit that waits for its manifest.
struct Prepared {
    change: Change,
    manifest: Manifest,
    catalog: Catalog,
    erased: usize,
}

/// Puts the new segments in the place of those that do not stay, with a new catalogue that holds no record of what was
/// erased. Nobody waits while the catalogue is copied, but where removals come between again and again.
fn exchange(inner: &Inner, keep: &HashSet<u64>, built: &[Arc<Segment>]) -> Result<Exchanged, StoreError> {
    for _ in 0..ATTEMPTS {
        let before = Before::of(&inner.read(), inner, keep, built)?;
        let prepared = prepare(inner, &before, built)?;
        let mut state = inner.write();
        if state.manifest.sequence == before.manifest.sequence {
            return settle(inner, &mut state, prepared);
        }
    }
    let mut state = inner.write();
    let before = Before::of(&state, inner, keep, built)?;
    let prepared = prepare(inner, &before, built)?;
    settle(inner, &mut state, prepared)
}

fn prepare(inner: &Inner, before: &Before, built: &[Arc<Segment>]) -> Result<Prepared, StoreError> {
    let mut change = Change::new(Addition::default());
    change.segments = built.to_vec();
    change.replaced = before.replaced.clone();
    change.receipt = (!before.erased.is_empty()).then(|| (Event::Erased, before.erased.clone()));
    let place = folder::generation(&inner.folder, before.manifest.generation + 1);
    let written = write_catalog(inner, before, &mut change, &place);
    let (manifest, catalog) = written.inspect_err(|_| drop(folder::remove(&place)))?;
    Ok(Prepared { change, manifest, catalog, erased: before.erased.len() })
}

fn settle(inner: &Inner, state: &mut State, prepared: Prepared) -> Result<Exchanged, StoreError> {
    let Prepared { mut change, manifest, catalog, erased } = prepared;
    let (place, old_place) = (
        folder::generation(&inner.folder, manifest.generation),
        folder::generation(&inner.folder, state.manifest.generation),
    );
    if let Err(error) = state.check_writable().and_then(|()| manifest.write(&inner.folder)) {
        match Manifest::read(&inner.folder).is_ok_and(|on_disk| on_disk == state.manifest) {
            true => drop((catalog, folder::remove(&place))),
            false => state.poisoned = Some(error.to_string()),
        }
        return Err(error);
    }
    let old = std::mem::replace(&mut state.catalog, catalog);
    let receipt = change.addition.receipt.take();
    let segments_after = manifest.segments.len();
    inner.install(state, manifest, change.segments, &change.replaced);
    let compacted = Compacted { segments_before: 0, segments_after, erased, receipt };
    Ok(Exchanged { compacted, old: (old, old_place), replaced: change.replaced })
}

/// Writes the catalogue of a new generation, with the records of the change, and reads it again.
fn write_catalog(
    inner: &Inner,
    before: &Before,
    change: &mut Change,
    place: &Path,
) -> Result<(Manifest, Catalog), StoreError> {
    folder::remove(place)?;
    fs::create_dir_all(place).map_err(io_error(place))?;
    let storage = crate::storage::open(place)?;
    let digest = before.snapshot.copy(inner.folder(), &*storage, &before.waiting)?;
    change.generation = Some((before.manifest.generation + 1, digest));
    let manifest = inner.manifest_after(&before.manifest, change)?;
    Catalog::write_to(&*storage, manifest.sequence, &change.addition)?;
    files::sync_tree(place)?;
    place.parent().map_or(Ok(()), files::sync_folder)?;
    let catalog = Catalog::load(storage, place, manifest.sequence)?;
    match catalog.digest() == manifest.catalogue {
        true => Ok((manifest, catalog)),
        false => Err(damaged(place, "the records that were just written are not there")),
    }
}
