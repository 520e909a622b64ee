//! Examples with their right answers.

use safelmm_plugin::{Document, Outcome, Passage, Vector};

/// For each language a sentence that passes at PG, and one that does not.
const PAIRS: [(&str, &str, &str); 31] = [
    ("ar", "زرع الأطفال الزهور في الحديقة.", "قتل الرجل جاره بسكين وترك الجثة في الدماء."),
    ("bg", "Децата четат книги в библиотеката.", "Убиецът намушка жертвата и тя умря в локва кръв."),
    ("cs", "Děti čtou knihy v knihovně.", "Vrah oběť ubodal a mrtvolu nechal v kaluži krve."),
    ("da", "Børnene læser bøger på biblioteket.", "Morderen stak offeret ned og efterlod liget i en blodpøl."),
    (
        "de",
        "Die Kinder lesen Bücher in der Bibliothek.",
        "Der Mörder erstach sein Opfer und ließ die Leiche in einer Blutlache.",
    ),
    (
        "el",
        "Τα παιδιά διαβάζουν βιβλία στη βιβλιοθήκη.",
        "Ο δολοφόνος μαχαίρωσε το θύμα και άφησε το πτώμα μέσα στο αίμα.",
    ),
    (
        "en",
        "The children read books in the library.",
        "The murderer stabbed his victim and left the corpse in a pool of blood.",
    ),
    (
        "es",
        "Los niños leen libros en la biblioteca.",
        "El asesino apuñaló a la víctima y dejó el cadáver en un charco de sangre.",
    ),
    ("et", "Lapsed loevad raamatukogus raamatuid.", "Mõrvar pussitas ohvrit ja jättis laiba vereloiku."),
    ("fi", "Lapset lukevat kirjoja kirjastossa.", "Murhaaja puukotti uhrinsa ja jätti ruumiin verilammikkoon."),
    (
        "fr",
        "Les enfants lisent des livres à la bibliothèque.",
        "L'assassin poignarda sa victime et laissa le cadavre dans une mare de sang.",
    ),
    (
        "ga",
        "Léann na páistí leabhair sa leabharlann.",
        "Sháigh an dúnmharfóir an fear agus d'fhág sé an corpán i linn fola.",
    ),
    ("hi", "बच्चे पुस्तकालय में किताबें पढ़ते हैं।", "हत्यारे ने चाकू मारकर हत्या की और लाश ख़ून में छोड़ दी।"),
    ("hr", "Djeca čitaju knjige u knjižnici.", "Ubojica je izbo žrtvu i ostavio leš u lokvi krvi."),
    (
        "hu",
        "A gyerekek könyveket olvasnak a könyvtárban.",
        "A gyilkos leszúrta az áldozatot, és a holttestet egy vértócsában hagyta.",
    ),
    (
        "id",
        "Anak-anak membaca buku di perpustakaan.",
        "Pembunuh itu menikam korbannya dan meninggalkan mayat dalam genangan darah.",
    ),
    (
        "it",
        "I bambini leggono libri in biblioteca.",
        "L'assassino accoltellò la vittima e lasciò il cadavere in una pozza di sangue.",
    ),
    ("ja", "子どもたちは図書館で本を読みます。", "殺人犯は被害者を刺し殺し、死体を血の海に残した。"),
    ("ko", "아이들은 도서관에서 책을 읽는다.", "살인범은 피해자를 칼로 찔러 죽이고 시체를 피바다에 남겼다."),
    ("lt", "Vaikai skaito knygas bibliotekoje.", "Žudikas nudūrė auką ir paliko lavoną kraujo klane."),
    ("lv", "Bērni lasa grāmatas bibliotēkā.", "Slepkava nodūra upuri un atstāja līķi asins peļķē."),
    (
        "mt",
        "It-tfal jaqraw il-kotba fil-librerija.",
        "Il-qattiel qatel lill-vittma b'sikkina u ħalla l-katavru f'għadira demm.",
    ),
    (
        "nl",
        "De kinderen lezen boeken in de bibliotheek.",
        "De moordenaar stak zijn slachtoffer neer en liet het lijk in een plas bloed achter.",
    ),
    ("pl", "Dzieci czytają książki w bibliotece.", "Morderca zadźgał ofiarę i zostawił zwłoki w kałuży krwi."),
    (
        "pt",
        "As crianças leem livros na biblioteca.",
        "O assassino esfaqueou a vítima e deixou o cadáver numa poça de sangue.",
    ),
    (
        "ro",
        "Copiii citesc cărți la bibliotecă.",
        "Ucigașul și-a înjunghiat victima și a lăsat cadavrul într-o baltă de sânge.",
    ),
    ("sk", "Deti čítajú knihy v knižnici.", "Vrah obeť dobodal a mŕtvolu nechal v kaluži krvi."),
    ("sl", "Otroci v knjižnici berejo knjige.", "Morilec je žrtev zabodel in truplo pustil v mlaki krvi."),
    ("sv", "Barnen läser böcker på biblioteket.", "Mördaren knivhögg offret och lämnade liket i en blodpöl."),
    ("vi", "Bọn trẻ đọc sách trong thư viện.", "Kẻ sát nhân đâm chết nạn nhân và bỏ lại xác chết trong vũng máu."),
    ("zh", "孩子们在图书馆看书。", "凶手刺死了受害者，把尸体留在血泊里。"),
];

fn passage(text: &str) -> Passage {
    Passage {
        source: Document::new("1", "Tales", "Anonymous", "CC0-1.0", "https://example.org/tales"),
        score: 1.0,
        text: text.into(),
    }
}

/// All golden vectors.
pub fn all() -> Vec<Vector> {
    let mut vectors = Vec::new();
    for (language, innocent, strong) in PAIRS {
        let pg = r#"{"ceiling": "PG", "threshold": 0.5}"#;
        vectors.push(Vector::prompt(&format!("{language}: innocent"), innocent, Outcome::Allow).settings(pg));
        vectors.push(Vector::prompt(&format!("{language}: murder"), strong, Outcome::Flag).settings(pg));
        vectors.push(
            Vector::stream(
                &format!("{language}: an answer"),
                [format!("{innocent} {strong} {innocent}")],
                Outcome::Rewrite,
            )
            .settings(r#"{"ceiling": "PG", "threshold": 0.5, "answers": "replace", "replacement": "***"}"#)
            .text(format!("{innocent} *** {innocent}")),
        );
    }
    let strong = "The murderer stabbed his victim and left the corpse in a pool of blood.";
    vectors.extend([
        Vector::prompt("no ceiling", strong, Outcome::Allow),
        Vector::prompt("not asked about prompts", strong, Outcome::Abstain)
            .settings(r#"{"ceiling": "G", "prompts": "abstain"}"#),
        Vector::prompt("denied", strong, Outcome::Deny).settings(r#"{"ceiling": "G", "prompts": "deny"}"#),
        Vector::prompt("mild at G", "The pirate drew his sword and drank rum in the tavern.", Outcome::Flag)
            .settings(r#"{"ceiling": "G"}"#),
        Vector::prompt("mild at PG", "The pirate drew his sword.", Outcome::Allow).settings(r#"{"ceiling": "PG"}"#),
        Vector::prompt(
            "explicit at R",
            "A site with hardcore pornographic videos of explicit sex acts.",
            Outcome::Flag,
        )
        .settings(r#"{"ceiling": "R"}"#)
        .category("rating/x"),
        Vector::prompt("mature at R", "The dealer sold them cocaine behind the club.", Outcome::Allow)
            .settings(r#"{"ceiling": "R"}"#),
        Vector::prompt("spelt with digits", "You fuck1ng b4stard, go to hell, you piece of sh1t!", Outcome::Flag)
            .settings(r#"{"ceiling": "PG"}"#),
        Vector::prompt("a script it does not know", "วันนี้อากาศดีมาก", Outcome::Abstain).settings(r#"{"ceiling": "G"}"#),
        Vector::passage("a passage that stays", passage("The miller's daughter fed the geese."), Outcome::Allow)
            .settings(r#"{"ceiling": "G"}"#),
        Vector::passage("a passage that goes", passage(strong), Outcome::Deny).settings(r#"{"ceiling": "PG"}"#),
        Vector::stream(
            "an answer that ends",
            [
                "The bread is good. The mur",
                "derer stabbed his victim and lef",
                "t the corpse in a pool of blood. The sun shines.",
            ],
            Outcome::Deny,
        )
        .settings(r#"{"ceiling": "PG", "message": "END"}"#)
        .text("The bread is good. END"),
        Vector::stream("an answer that passes", ["The bread ", "is good. The sun ", "shines."], Outcome::Allow)
            .settings(r#"{"ceiling": "G"}"#)
            .text("The bread is good. The sun shines."),
        Vector::answer("a whole answer", format!("The bread is good. {strong}"), Outcome::Deny)
            .settings(r#"{"ceiling": "PG"}"#),
        Vector::answer("a whole answer with a gap", format!("The bread is good. {strong} Bye."), Outcome::Rewrite)
            .settings(r#"{"ceiling": "PG", "answers": "replace"}"#)
            .text("The bread is good. […] Bye."),
    ]);
    vectors
}
