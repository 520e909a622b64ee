use super::*;

/// Numbers that offices, laws and handbooks print as examples, each with the words that it needs before it.
#[rustfmt::skip]
const EXAMPLES: &[(&str, &str)] = &[
    ("SVNR: ", "1237 010180"), ("", "85.07.30-033.28"), ("ЕГН ", "7523169263"), ("ΑΦΤ ", "10259033P"), ("", "710319/2745"),
    ("rodné číslo: ", "7103192745"), ("Steuer-ID ", "36574261809"), ("Steuer-ID: ", "86 095 742 719"), ("", "15070649C103"),
    ("", "070761-4285"), ("", "37605030299"), ("", "33309240064"), ("", "12345678Z"), ("", "12345678-Z"), ("", "X1234567L"),
    ("", "131052-308T"), ("", "2 55 08 14 168 025 38"), ("", "255081416802538"), ("Numéro fiscal : ", "30 23 217 600 053"),
    ("ΑΦΜ: ", "094259216"), ("ΑΜΚΑ ", "01013099997"), ("OIB: ", "33392005961"), ("", "1234567T"), ("", "1234567FA"), ("", "6433435F"),
    ("", "RSSMRA85T10A562S"), ("", "1893120105732"), ("", "161175-19997"), ("Karta tal-Identità: ", "1234567M"), ("BSN ", "111222333"),
    ("burgerservicenummer: ", "123456782"), ("PESEL ", "44051401359"), ("NIP: ", "856-734-62-15"), ("NIF ", "123456789"), ("", "00000000 0 ZZ4"),
    ("", "1630615123457"), ("", "811228-9874"), ("", "19811228-9874"), ("Personnummer: ", "8112289874"), ("", "0101006500006"), ("davčna številka: ", "50223054"),
    ("", "123-45-6789"), ("", "AB 12 34 56 C"), ("NHS number ", "943 476 5919"), ("", "15108695088"), ("", "120174-3399"), ("", "756.9217.0769.85"),
    ("T.C. Kimlik No: ", "17291716060"), ("", "360426199101010071"), ("", "971013-9019902"), ("Aadhaar: ", "2341 2341 2346"), ("", "ACUPA7085R"), ("", "390.533.447-05"),
    ("adóazonosító: ", "8071592153"), ("TAJ szám: ", "123 456 788"),
];

fn found(text: &str) -> Vec<String> {
    let reading = Text::new(text);
    (0..text.len())
        .filter(|&at| text.is_char_boundary(at) && text.as_bytes()[at].is_ascii_alphanumeric())
        .filter(|&at| at == 0 || !text.as_bytes()[at - 1].is_ascii_alphanumeric())
        .filter_map(|start| at(&reading, start))
        .map(|m| text[m.start..m.end].to_owned())
        .collect()
}

#[test]
fn examples_are_found() {
    let missed: Vec<_> = EXAMPLES
        .iter()
        .filter(|(words, number)| !found(&format!("{words}{number}.")).contains(&number.to_string()))
        .collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn every_state_of_the_union_is_there() {
    let named = [
        "Austrian",
        "Belgian",
        "Bulgarian",
        "Croatian",
        "Cypriot",
        "Czech",
        "Danish",
        "Dutch",
        "Estonian",
        "Finnish",
        "French",
        "German",
        "Greek",
        "Hungarian",
        "Irish",
        "Italian",
        "Latvian",
        "Lithuanian",
        "Luxembourgish",
        "Maltese",
        "Polish",
        "Portuguese",
        "Romanian",
        "Slovak",
        "Slovenian",
        "Spanish",
        "Swedish",
    ];
    assert_eq!(named.len(), 27);
    for state in named {
        assert!(eu::NUMBERS.iter().any(|number| number.what.contains(state)), "{state}");
    }
}

#[test]
fn a_wrong_check_digit_is_not_a_number() {
    // Without check digits, or with letters that are not digits of a sum: any digit may stand there.
    let unchecked =
        ["070761-4285", "123-45-6789", "AB 12 34 56 C", "971013-9019902", "ACUPA7085R", "1234567M", "120174-3399"];
    for (words, number) in EXAMPLES.iter().filter(|(_, number)| !unchecked.contains(number)) {
        let place = number.rfind(|c: char| c.is_ascii_digit()).unwrap();
        let digit = number.as_bytes()[place] - b'0';
        for wrong in (0..10).filter(|&wrong| wrong != digit) {
            let mut wrong_number = number.to_string();
            wrong_number.replace_range(place..place + 1, &wrong.to_string());
            let text = format!("{words}{wrong_number}.");
            // Another country's number may be right by chance.
            let own = at(&Text::new(&text), words.len()).filter(|m| m.end - m.start == number.len());
            let right = at(&Text::new(&format!("{words}{number}.")), words.len()).unwrap();
            assert!(own.is_none_or(|own| own.what != right.what), "{text}");
        }
    }
}

#[test]
fn random_numbers_are_seldom_taken_for_one() {
    // A multiplicative generator is enough for digits.
    let mut state = 88_172_645_463_325_252u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut taken = 0;
    let tries = 20_000;
    for number in 0..tries {
        let length = 6 + number % 12;
        let digits: String = (0..length).map(|_| char::from(b'0' + (next() % 10) as u8)).collect();
        taken += usize::from(at(&Text::new(&digits), 0).is_some());
    }
    assert!(taken * 100 < tries, "{taken} of {tries}");
}
