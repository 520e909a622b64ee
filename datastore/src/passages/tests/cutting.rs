//! Passages and the ends of sentences.

use std::ops::Range;

use proptest::prelude::*;

use super::super::cut;
use super::super::sentences::{Border, ends};

fn sentences(text: &str) -> Vec<&str> {
    let mut from = 0;
    let mut found = Vec::new();
    let mut add = |to: usize| {
        if to > from {
            found.push(text[from..to].trim());
            from = to;
        }
    };
    ends(text, |end, kind| {
        if kind == Border::Sentence {
            add(end);
        }
    });
    add(text.len());
    found.retain(|sentence| !sentence.is_empty());
    found
}

#[test]
fn sentences_end_in_all_languages() {
    for pair in [
        "Котката спи.|Навън вали.",
        "Mačka spava.|Vani pada kiša!",
        "Kočka spí.|Venku prší?",
        "Katten sover.|Det regner.",
        "De kat slaapt.|Het regent.",
        "The cat sleeps.|It is raining.",
        "Kass magab.|Õues sajab.",
        "Kissa nukkuu.|Ulkona sataa.",
        "Le chat dort !|« Il pleut. »|Dehors, oui.",
        "Die Katze schläft.|Ärger gab es.",
        "Η γάτα κοιμάται;|Βρέχει έξω.",
        "A macska alszik.|Őszi eső esik.",
        "Tá an cat ina chodladh.|Tá sé ag cur báistí.",
        "Il gatto dorme.|È piovoso.",
        "Kaķis guļ.|Ārā līst.",
        "Katė miega.|Šiandien lyja.",
        "Il-qattus rieqed.|Qed tagħmel ix-xita.",
        "Kot śpi.|Łódź czeka.",
        "O gato dorme.|Está chovendo.",
        "Pisica doarme.|Șoarecele nu.",
        "Mačka spí.|Ľudia nie.",
        "Mačka spi.|Čaka dež.",
        "¿Duerme el gato?|¡Llueve!",
        "Katten sover.|Åskan går.",
        "القطة نائمة؟|إنها تمطر.",
        "猫在睡觉。|下雨了！|“真的？”|是的。",
        "बिल्ली सो रही है।|बाहर बारिश हो रही है।",
        "Kucing tidur.|Hujan turun.",
        "猫が寝ている。|「雨ですか？」|はい。",
        "고양이가 잔다.|비가 온다.",
        "Con mèo ngủ.|Trời mưa.",
    ] {
        let wanted: Vec<&str> = pair.split('|').collect();
        assert_eq!(sentences(&wanted.join(" ")), wanted);
    }
    assert_eq!(sentences("猫在睡觉。下雨了！真的？？是。"), ["猫在睡觉。", "下雨了！", "真的？？", "是。"]);
}

#[test]
fn not_every_full_stop_ends_a_sentence() {
    for one in [
        "Dr. Smith paid 3.50 to J. Doe.",
        "Am 3. Oktober kam Prof. Maier.",
        "See www.example.org for more.",
        "It was, e.g. in Paris, called so.",
        "“Wait!” she cried.",
        "No; not in English.",
    ] {
        assert_eq!(sentences(one), [one]);
    }
    assert_eq!(sentences("A title\n\nIts text\ngoes on"), ["A title", "Its text\ngoes on"]);
    assert_eq!(sentences("(He left.) She stayed."), ["(He left.)", "She stayed."]);
}

/// A token for each word with the space before it.
fn words(text: &str) -> Vec<Range<usize>> {
    let mut starts: Vec<usize> = text.match_indices(' ').map(|(at, _)| at).collect();
    starts.insert(0, 0);
    starts.push(text.len());
    starts.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

#[test]
fn passages_begin_and_end_with_sentences() {
    let text = vec!["One two three four five six seven."; 100].join(" ");
    let offsets = words(&text);
    let passages = cut(&text, &offsets, 100, 50);
    assert!(passages.len() > 10);
    for passage in &passages {
        assert_eq!((passage.start % 7, passage.end % 7), (0, 0), "{passage:?}");
        assert!(passage.len() <= 100 && passage.len() > 90 || passage.end == offsets.len());
    }
    for pair in passages.windows(2) {
        assert!((45..=56).contains(&(pair[1].start - pair[0].start)), "{pair:?}");
    }
    let lines = vec!["let x = y;"; 100].join("\n ");
    for passage in cut(&lines, &words(&lines), 40, 20) {
        assert_eq!((passage.start % 4, passage.end % 4), (0, 0), "{passage:?}");
    }
    assert!(cut("", &[], 10, 5).is_empty());
    assert_eq!(cut("a b", &words("a b"), 10, 5).first(), Some(&(0..2)));
    assert_eq!(cut("a b c", &words("a b c"), 0, 0), [0..1, 1..2, 2..3]);
}

/// A text and the bytes of its tokens: a token has some characters, or a character has some tokens.
fn tokenized() -> impl Strategy<Value = (String, Vec<Range<usize>>)> {
    let piece = prop_oneof![
        3 => ("[a-z.!? \n]{1,4}", Just(1usize)),
        1 => ("[。字ñ।😀]{1,3}", Just(1usize)),
        1 => ("[😀字]", 2usize..5),
        1 => ("", Just(1usize)),
    ];
    (prop::collection::vec(piece, 0..200), any::<bool>()).prop_map(|(pieces, split)| {
        let (mut text, mut offsets) = (String::new(), Vec::new());
        for (piece, tokens) in pieces {
            let (start, end) = (text.len(), text.len() + piece.len());
            text.push_str(&piece);
            for i in 0..tokens {
                // Tokenizers give the parts of a character the whole character, or each its bytes.
                offsets.push(match (tokens, split) {
                    (1, _) | (_, false) => start..end,
                    _ => (start + i).min(end)..if i + 1 == tokens { end } else { (start + i + 1).min(end) },
                });
            }
        }
        (text, offsets)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn passages_cover_the_text_and_split_no_character(
        (text, offsets) in tokenized(), size in 5usize..40, stride in 1usize..50,
    ) {
        let passages = cut(&text, &offsets, size, stride);
        prop_assert_eq!(passages.is_empty(), offsets.is_empty());
        let Some(last) = passages.last() else { return Ok(()) };
        prop_assert_eq!((passages[0].start, last.end), (0, offsets.len()));
        for pair in passages.windows(2) {
            prop_assert!(pair[0].start < pair[1].start && pair[1].start <= pair[0].end && pair[0].end < pair[1].end, "{:?}", pair);
        }
        for passage in &passages {
            prop_assert!(!passage.is_empty());
            for at in [passage.start, passage.end] {
                if at > 0 && at < offsets.len() {
                    let before = offsets[..at].iter().map(|offset| offset.end).max().unwrap_or(0);
                    prop_assert!(before <= offsets[at].start, "token {at} begins inside another");
                    prop_assert!(text.is_char_boundary(offsets[at].start));
                }
            }
        }
    }

    #[test]
    fn any_offsets_are_survived(
        text in ".{0,50}", offsets in prop::collection::vec((0usize..80, 0usize..80), 0..100), size in 0usize..30, stride in 0usize..30,
    ) {
        let offsets: Vec<Range<usize>> = offsets.into_iter().map(|(a, b)| a..b).collect();
        let passages = cut(&text, &offsets, size, stride);
        prop_assert_eq!(passages.last().map_or(0, |last| last.end), offsets.len());
    }
}

#[test]
fn a_run_of_marks_is_one_border_and_costs_its_length() {
    let mut borders = Vec::new();
    for run in ["。".repeat(300_000), "。」".repeat(150_000), "？！".repeat(150_000)] {
        let begun = std::time::Instant::now();
        borders.clear();
        super::super::sentences::ends(&run, |at, _| borders.push(at));
        assert_eq!(borders, [run.len()]);
        assert!(begun.elapsed().as_secs() < 5, "each mark was looked at with all that follow it");
    }
}
