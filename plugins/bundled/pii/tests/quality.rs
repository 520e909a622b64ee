//! Precision and recall on labelled texts, by kind.

use std::collections::BTreeMap;

use safelmm_plugin::testing::configure;
use safelmm_policy_pii::Pii;

/// Kind, first byte, and the byte behind.
type Mark = (String, usize, usize);

/// A text without its marks, and what is to be found in it; none where the marks are not well written.
fn unmarked(line: &str) -> Option<(String, Vec<Mark>)> {
    let (mut text, mut marks, mut rest) = (String::new(), Vec::new(), line);
    while let Some((before, behind)) = rest.split_once('⟦') {
        let (mark, after) = behind.split_once('⟧')?;
        let (kind, value) = mark.split_once('|')?;
        text.push_str(before);
        marks.push((kind.to_owned(), text.len(), text.len() + value.len()));
        text.push_str(value);
        rest = after;
    }
    Some((text + rest, marks))
}

#[derive(Default)]
struct Counts {
    right: usize,
    wrong: usize,
    missed: usize,
}

#[test]
fn precision_and_recall() {
    let policy = configure::<Pii>("").unwrap();
    let mut by_kind: BTreeMap<String, Counts> = BTreeMap::new();
    let mut mistakes = Vec::new();
    let lines = include_str!("labelled.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    for (text, expected) in lines.map(|line| unmarked(line).unwrap()) {
        let found: Vec<Mark> = policy
            .find(&text)
            .into_iter()
            .map(|m| (m.kind.category().trim_start_matches("pii/").to_owned(), m.start, m.end))
            .collect();
        for m in &found {
            let counts = by_kind.entry(m.0.clone()).or_default();
            if expected.contains(m) {
                counts.right += 1;
            } else {
                counts.wrong += 1;
                mistakes.push(format!("wrong  {}: {:?} in {text}", m.0, &text[m.1..m.2]));
            }
        }
        for m in expected.iter().filter(|m| !found.contains(m)) {
            by_kind.entry(m.0.clone()).or_default().missed += 1;
            mistakes.push(format!("missed {}: {:?} in {text}", m.0, &text[m.1..m.2]));
        }
    }
    println!("{}", mistakes.join("\n"));
    println!("{:16} {:>5} {:>9} {:>6}", "kind", "items", "precision", "recall");
    let share = |part: usize, whole: usize| if whole == 0 { 1.0 } else { part as f64 / whole as f64 };
    let (mut right, mut wrong, mut missed) = (0, 0, 0);
    for (kind, counts) in &by_kind {
        let (precision, recall) =
            (share(counts.right, counts.right + counts.wrong), share(counts.right, counts.right + counts.missed));
        println!("{kind:16} {:>5} {precision:>9.3} {recall:>6.3}", counts.right + counts.missed);
        right += counts.right;
        wrong += counts.wrong;
        missed += counts.missed;
    }
    let (precision, recall) = (share(right, right + wrong), share(right, right + missed));
    println!("{:16} {:>5} {precision:>9.3} {recall:>6.3}", "all", right + missed);
    assert!(precision >= 0.98 && recall >= 0.98, "precision {precision:.3}, recall {recall:.3}");
}
