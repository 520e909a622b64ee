use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;

type Documents = Vec<Vec<u32>>;

fn flat(documents: &[Vec<u32>]) -> (Vec<u32>, Vec<u32>) {
    let mut starts = Vec::new();
    let mut tokens = Vec::new();
    for document in documents {
        starts.push(tokens.len() as u32);
        tokens.extend(document);
    }
    (tokens, starts)
}

fn index(documents: &[Vec<u32>]) -> SuffixIndex {
    let dir = tempfile::tempdir().unwrap();
    let (tokens, starts) = flat(documents);
    SuffixIndex::build(dir.path(), &tokens, &starts, &AtomicBool::new(false)).unwrap();
    let index = SuffixIndex::open(dir.path(), Arc::new(tokens), &starts).unwrap();
    index.verify(dir.path()).unwrap();
    index
}

/// Few tokens, some of them huge, so that there are repeats; documents may be empty.
fn documents() -> impl Strategy<Value = Documents> {
    let token = prop_oneof![4 => 0u32..3, 1 => 3u32..12, 1 => Just(u32::MAX)];
    prop::collection::vec(prop::collection::vec(token, 0..40), 0..8)
}

/// Slices of the documents in any order, with other tokens between.
fn text() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(prop_oneof![6 => 0u32..3, 1 => 3u32..14, 1 => Just(u32::MAX)], 0..60)
}

/// Every place of a pattern: document and position in the segment.
fn places(documents: &[Vec<u32>], allowed: &BTreeSet<u32>, pattern: &[u32]) -> Vec<(u32, u32)> {
    let (_, starts) = flat(documents);
    let mut found = Vec::new();
    for (d, document) in documents.iter().enumerate().filter(|(d, _)| allowed.contains(&(*d as u32))) {
        for (at, window) in document.windows(pattern.len()).enumerate() {
            if window == pattern {
                found.push((d as u32, starts[d] + at as u32));
            }
        }
    }
    found
}

fn continuations_by_force(
    documents: &[Vec<u32>],
    allowed: &BTreeSet<u32>,
    context: &[u32],
    limit: usize,
) -> Continuations {
    let (tokens, starts) = flat(documents);
    for matched in (1..=context.len()).rev() {
        let mut occurrences = Vec::new();
        for (document, start) in places(documents, allowed, &context[context.len() - matched..]) {
            let position = start + matched as u32;
            if (position as usize) < starts[document as usize] as usize + documents[document as usize].len() {
                occurrences.push(Occurrence { token: tokens[position as usize], document, position });
            }
        }
        if !occurrences.is_empty() {
            let too_many = occurrences.len() > limit;
            return Continuations { matched, occurrences: if too_many { Vec::new() } else { occurrences }, too_many };
        }
    }
    Continuations::default()
}

fn trace_by_force(
    documents: &[Vec<u32>],
    allowed: &BTreeSet<u32>,
    text: &[u32],
    min_len: usize,
) -> Vec<(Range, usize)> {
    let mut found: Vec<Range> = Vec::new();
    for start in 0..text.len() {
        let longest =
            (1..=text.len() - start).rev().find(|n| !places(documents, allowed, &text[start..start + n]).is_empty());
        if let Some(n) = longest {
            found.push((start, start + n));
        }
    }
    let contained = |a: &Range| found.iter().any(|b| b != a && b.0 <= a.0 && a.1 <= b.1);
    let kept = found.iter().filter(|a| a.1 - a.0 >= min_len && !contained(a));
    kept.map(|&a| (a, places(documents, allowed, &text[a.0..a.1]).len())).collect()
}

type Range = (usize, usize);

/// Documents of which only some are left, with what became of their numbers and positions.
fn without(documents: &[Vec<u32>], allowed: &BTreeSet<u32>) -> (Documents, Vec<u32>, Vec<u32>) {
    let (_, starts) = flat(documents);
    let kept: Vec<u32> = (0..documents.len() as u32).filter(|d| allowed.contains(d)).collect();
    let left: Documents = kept.iter().map(|&d| documents[d as usize].clone()).collect();
    let shifts = kept.iter().zip(flat(&left).1).map(|(&d, start)| starts[d as usize] - start).collect();
    (left, kept, shifts)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn continuations_are_what_brute_force_finds(
        documents in documents(), text in text(), mask in any::<u8>(), limit in 0usize..12,
    ) {
        let index = index(&documents);
        let allowed: BTreeSet<u32> = (0..8).filter(|d| mask >> d & 1 == 1).collect();
        let all: BTreeSet<u32> = (0..8).collect();
        let may = |d: u32| allowed.contains(&d);
        let max_context = 10;
        let mut cursor = SuffixCursor::new(&index, max_context);
        for end in 0..=text.len() {
            let context = &text[end.saturating_sub(max_context)..end];
            let wanted = continuations_by_force(&documents, &allowed, context, limit);
            prop_assert_eq!(&index.continuations(context, Some(&may), limit), &wanted);
            prop_assert_eq!(
                index.continuations(context, None, limit),
                continuations_by_force(&documents, &all, context, limit)
            );
            // The cursor may also be asked after several tokens only.
            if end % 3 != 1 {
                prop_assert_eq!(&cursor.continuations(Some(&may), limit), &wanted);
            }
            if end < text.len() {
                cursor.push(text[end]);
            }
        }
    }

    #[test]
    fn traces_are_what_brute_force_finds(
        documents in documents(), text in text(), mask in any::<u8>(), min_len in 1usize..6, most in 0usize..5,
    ) {
        let index = index(&documents);
        let allowed: BTreeSet<u32> = (0..8).filter(|d| mask >> d & 1 == 1).collect();
        let may = |d: u32| allowed.contains(&d);
        let found = index.trace(&text, min_len, most, Some(&may));
        let got: Vec<(Range, usize)> = found.iter().map(|m| ((m.range.start, m.range.end), m.count)).collect();
        prop_assert_eq!(got, trace_by_force(&documents, &allowed, &text, min_len));
        for m in &found {
            let all = places(&documents, &allowed, &text[m.range.clone()]);
            prop_assert_eq!(m.occurrences.len(), m.count.min(most));
            prop_assert!(m.occurrences.iter().all(|o| all.contains(&(o.document, o.position))));
        }
        let everything = (0..8).collect();
        let found = index.trace(&text, min_len, most, None);
        let got: Vec<(Range, usize)> = found.iter().map(|m| ((m.range.start, m.range.end), m.count)).collect();
        prop_assert_eq!(got, trace_by_force(&documents, &everything, &text, min_len));
    }

    #[test]
    fn what_is_not_allowed_might_as_well_never_have_been_there(
        documents in documents(), text in text(), mask in any::<u8>(), limit in 0usize..30, most in 0usize..5,
    ) {
        let allowed: BTreeSet<u32> = (0..8).filter(|d| mask >> d & 1 == 1).collect();
        let (left, kept, shifts) = without(&documents, &allowed);
        let (whole, left) = (index(&documents), index(&left));
        let may = |d: u32| allowed.contains(&d);

        let mut wanted = left.continuations(&text, None, limit);
        for o in &mut wanted.occurrences {
            o.position += shifts[o.document as usize];
            o.document = kept[o.document as usize];
        }
        prop_assert_eq!(whole.continuations(&text, Some(&may), limit), wanted);

        let mut wanted = left.trace(&text, 2, most, None);
        for o in wanted.iter_mut().flat_map(|m| &mut m.occurrences) {
            o.position += shifts[o.document as usize];
            o.document = kept[o.document as usize];
        }
        prop_assert_eq!(whole.trace(&text, 2, most, Some(&may)), wanted);
    }

    #[test]
    fn a_damaged_file_gives_an_error_or_fewer_matches_but_no_panic(
        documents in documents(), text in text(), at in any::<prop::sample::Index>(), bit in 0u8..8,
        cut in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (tokens, starts) = flat(&documents);
        SuffixIndex::build(dir.path(), &tokens, &starts, &AtomicBool::new(false)).unwrap();
        let path = dir.path().join(format::FILE);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        fs::write(&path, bytes).unwrap();
        match SuffixIndex::open(dir.path(), Arc::new(tokens), &starts) {
            Err(error) => prop_assert!(error.to_string().contains("suffix.bin"), "{}", error),
            Ok(index) => {
                prop_assert!(!cut, "a file cut short was opened");
                prop_assert!(index.verify(dir.path()).is_err());
                index.continuations(&text, None, 10);
                index.trace(&text, 1, 10, Some(&|d| d % 2 == 0));
            }
        }
    }
}

#[test]
fn the_same_tokens_give_the_same_file() {
    let documents = vec![vec![1, 2, 3, 1, 2], vec![], vec![1, 2, 3]];
    let (tokens, starts) = flat(&documents);
    let build = || {
        let dir = tempfile::tempdir().unwrap();
        SuffixIndex::build(&dir.path().join("suffix"), &tokens, &starts, &AtomicBool::new(false)).unwrap();
        fs::read(dir.path().join("suffix").join(format::FILE)).unwrap()
    };
    assert_eq!(build(), build());
}

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let build = |tokens: &[u32], starts: &[u32]| {
        SuffixIndex::build(dir.path(), tokens, starts, &AtomicBool::new(false)).map_err(|e| e.to_string())
    };
    assert!(build(&[1, 2], &[]).unwrap_err().contains("must start at token 0"));
    assert!(build(&[1, 2], &[1]).unwrap_err().contains("must start at token 0"));
    assert!(build(&[1, 2], &[0, 2, 1]).unwrap_err().contains("before its predecessor"));
    assert!(build(&[1, 2], &[0, 3]).unwrap_err().contains("starts at token 3"));
    assert!(build(&[], &[]).is_ok());
    assert!(build(&[1, 2, 3], &[0, 2]).is_ok());

    let open = |tokens: &[u32], starts: &[u32]| match SuffixIndex::open(dir.path(), Arc::new(tokens.to_vec()), starts) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    assert_eq!(open(&[1, 2, 3], &[0, 2]), "");
    assert!(open(&[1, 2, 3, 4], &[0, 2]).contains("3 tokens in 2 documents, expected 4 tokens in 2 documents"));
    fs::remove_file(dir.path().join(format::FILE)).unwrap();
    assert!(open(&[1, 2, 3], &[0, 2]).contains("suffix.bin"));

    let stopped = SuffixIndex::build(dir.path(), &[1], &[0], &AtomicBool::new(true));
    assert!(matches!(stopped, Err(SuffixError::Stopped)));
}

/// Removals while a cursor is in use are honoured at its next step.
#[test]
fn a_cursor_honours_what_is_removed_under_it() {
    let index = index(&[vec![1, 2, 3, 4, 5, 6], vec![9, 3, 4, 7]]);
    let mut cursor = SuffixCursor::new(&index, 100);
    for token in [1, 2, 3] {
        cursor.push(token);
    }
    assert_eq!(cursor.continuations(None, 10).matched, 3);
    cursor.push(4);
    let after = cursor.continuations(Some(&|d| d != 0), 10);
    assert_eq!((after.matched, after.occurrences), (2, vec![Occurrence { token: 7, document: 1, position: 9 }]));
}
