//! The terms of texts.

use super::super::terms;

fn terms_of(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    terms::for_each(text, |term| found.push(term.to_owned()));
    found
}

#[test]
fn words_are_folded_and_unspaced_scripts_are_bigrams() {
    for (text, wanted) in [
        ("", &[][..]),
        ("The quick-brown FOX, 3.5!", &["the", "quick", "brown", "fox", "3", "5"]),
        ("Straße STRASSE", &["strasse", "strasse"]),
        ("ΟΔΟΣ οδός Οδος", &["οδοσ", "οδόσ", "οδοσ"]),
        ("ﬁn ① Ｆｕｌｌ", &["fin", "1", "full"]),
        ("l'été d’où", &["l", "été", "d", "où"]),
        ("e\u{301}te\u{301} co\u{ad}operate", &["été", "cooperate"]),
        ("Việt Nam", &["việt", "nam"]),
        ("हिन्दी भाषा।", &["हिन्दी", "भाषा"]),
        ("كِتَاب كتـــاب", &["كتاب", "كتاب"]),
        ("我爱北京", &["我爱", "爱北", "北京"]),
        ("東京タワーへ", &["東京", "京タ", "タワ", "ワー", "ーへ"]),
        ("대한민국 만세", &["대한", "한민", "민국", "만세"]),
        ("猫 Rust语言2024年", &["猫", "rust", "语言", "2024", "年"]),
        ("ｶﾞｷﾞ", &["ガギ"]),
        ("ไทย", &["ไท", "ทย"]),
        ("\u{301}\u{200b} -- !", &[]),
    ] {
        assert_eq!(terms_of(text), wanted, "{text}");
    }
}

#[test]
fn a_term_without_end_is_cut() {
    let long = "ab".repeat(100_000);
    assert_eq!(terms_of(&format!("{long} c")), [&long[..64], "c"]);
}

#[test]
fn counting_is_for_each_term() {
    let counted: Vec<(String, u32)> = terms::count("b a B c b").into_iter().collect();
    assert_eq!(counted, [("a".to_owned(), 1), ("b".to_owned(), 3), ("c".to_owned(), 1)]);
}
