//! Examples with their right answers.

use safelmm_plugin::{Document, Outcome, Passage, Vector};

/// For each language a sentence that passes, and one that does not.
const PAIRS: [(&str, &str, &str); 31] = [
    ("ar", "زرع الأطفال الطماطم في الحديقة.", "طعن القاتل المرأة بسكين وكانت الجثة في بركة من الدماء."),
    (
        "bg",
        "Учителката обясни как растенията използват слънцето.",
        "Убиецът намушка жената с нож и трупът лежеше в локва кръв.",
    ),
    ("cs", "Učitelka vysvětlila dětem, jak rostliny rostou.", "Vrah ženu bodl nožem a mrtvola ležela v kaluži krve."),
    ("da", "Læreren forklarede, hvordan planter bruger sollyset.", "Hun blev voldtaget og myrdet af en morder."),
    ("de", "Die Lehrerin erklärte, wie Pflanzen das Licht nutzen.", "So eine Scheiße, du Arschloch, du Hurensohn!"),
    (
        "el",
        "Η δασκάλα εξήγησε πώς μεγαλώνουν τα φυτά.",
        "Ο δολοφόνος μαχαίρωσε τη γυναίκα και το πτώμα βρισκόταν σε λίμνη αίματος.",
    ),
    (
        "en",
        "The teacher explained how plants use the light of the sun.",
        "Fuck you, you fucking bastard, you lying piece of shit.",
    ),
    (
        "es",
        "La maestra explicó cómo las plantas usan la luz.",
        "El asesino apuñaló a la mujer y el cadáver yacía en un charco de sangre.",
    ),
    ("et", "Õpetaja seletas, kuidas taimed kasvavad.", "Mõrvar pussitas naist ja laip lamas vereloigus."),
    (
        "fi",
        "Opettaja selitti, miten kasvit käyttävät valoa.",
        "Murhaaja puukotti naista, ja ruumis makasi verilammikossa.",
    ),
    (
        "fr",
        "La maîtresse a expliqué comment poussent les plantes.",
        "L'assassin poignarda la femme, et le cadavre gisait dans une mare de sang.",
    ),
    (
        "ga",
        "Mhínigh an múinteoir conas a fhásann plandaí.",
        "Sháigh an dúnmharfóir an bhean agus bhí an corpán i linn fola.",
    ),
    ("hi", "शिक्षिका ने समझाया कि पौधे कैसे बढ़ते हैं।", "हत्यारे ने महिला को चाकू मारा और लाश ख़ून से लथपथ पड़ी थी।"),
    ("hr", "Učiteljica je objasnila kako biljke rastu.", "Ubojica je ubo ženu nožem, a leš je ležao u lokvi krvi."),
    (
        "hu",
        "A tanárnő elmagyarázta, hogyan nőnek a növények.",
        "A gyilkos megölte a nőt, és a holttest egy vértócsában feküdt.",
    ),
    (
        "id",
        "Guru menjelaskan bagaimana tanaman tumbuh.",
        "Pembunuh itu menikam wanita dan mayat tergeletak dalam genangan darah.",
    ),
    (
        "it",
        "La maestra ha spiegato come crescono le piante.",
        "L'assassino accoltellò la donna e il cadavere giaceva in una pozza di sangue.",
    ),
    ("ja", "先生は植物がどう育つかを説明しました。", "殺人犯は女性を刺し殺し、死体が血の海に横たわっていた。"),
    ("ko", "선생님은 식물이 어떻게 자라는지 설명했다.", "살인범은 여자를 칼로 찌르고 시체는 피바다에 누워 있었다."),
    ("lt", "Mokytoja paaiškino, kaip auga augalai.", "Žudikas nudūrė moterį, ir lavonas gulėjo kraujo klane."),
    ("lv", "Skolotāja paskaidroja, kā aug augi.", "Slepkava nodūra sievieti, un līķis gulēja asins peļķē."),
    ("mt", "L-għalliema spjegat kif jikbru l-pjanti.", "Il-qattiel qatel lill-mara u l-katavru kien f'għadira demm."),
    ("nl", "De juf legde uit hoe planten groeien.", "De moordenaar heeft haar verkracht en vermoord."),
    ("pl", "Nauczycielka wyjaśniła, jak rosną rośliny.", "Morderca zadźgał kobietę, a zwłoki leżały w kałuży krwi."),
    (
        "pt",
        "A professora explicou como crescem as plantas.",
        "O assassino esfaqueou a mulher e o cadáver jazia numa poça de sangue.",
    ),
    (
        "ro",
        "Învățătoarea a explicat cum cresc plantele.",
        "Criminalul a înjunghiat femeia, iar cadavrul zăcea într-o baltă de sânge.",
    ),
    ("sk", "Učiteľka vysvetlila, ako rastú rastliny.", "Vrah ženu bodol nožom a mŕtvola ležala v kaluži krvi."),
    (
        "sl",
        "Učiteljica je razložila, kako rastejo rastline.",
        "Morilec je žensko zabodel in truplo je ležalo v mlaki krvi.",
    ),
    ("sv", "Läraren förklarade hur växter växer.", "Mördaren högg kvinnan med kniv, och liket låg i en blodpöl."),
    (
        "vi",
        "Cô giáo giải thích cây cối lớn lên như thế nào.",
        "Kẻ sát nhân đâm người phụ nữ và xác chết nằm trong vũng máu.",
    ),
    ("zh", "老师给大家讲植物怎样生长。", "凶手用刀刺死女子，尸体躺在血泊里。"),
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
    for (language, clean, harmful) in PAIRS {
        vectors.push(Vector::prompt(&format!("{language}: clean"), clean, Outcome::Allow));
        vectors.push(Vector::prompt(&format!("{language}: harmful"), harmful, Outcome::Flag).category("harmful"));
    }
    let (_, clean, harmful) = PAIRS[6];
    vectors.extend([
        Vector::prompt("denied", harmful, Outcome::Deny)
            .settings(r#"{"prompts": "deny", "category": "harassment"}"#)
            .category("harassment"),
        Vector::prompt("not asked about prompts", harmful, Outcome::Abstain).settings(r#"{"prompts": "abstain"}"#),
        Vector::prompt("among clean sentences", format!("{clean} {harmful} {clean}"), Outcome::Flag),
        Vector::prompt("a threshold out of reach", harmful, Outcome::Allow).settings(r#"{"threshold": 15}"#),
        Vector::prompt("no word", "1 + 1 = ?!", Outcome::Allow),
        Vector::passage("a passage that goes", passage(harmful), Outcome::Deny),
        Vector::passage("a passage that stays", passage(clean), Outcome::Allow),
        Vector::answer("an answer", harmful, Outcome::Flag),
    ]);
    vectors
}
