//! The notice's words in 31 languages.

use safelmm_plugin::Obligation;

/// A language (ISO 639-1), the heading of the notice, and what licenses ask for: attribution, share alike, no commercial
/// use, no derivatives, as the Creative Commons names them in that language.
pub type Phrases = (&'static str, &'static str, [&'static str; 4]);

/// By language, in the order of the codes.
#[rustfmt::skip]
pub const PHRASES: [Phrases; 31] = [
    ("ar", "يستند هذا الجواب إلى المصادر التالية، وتطلب رخصها ذكرها:", ["نَسب المُصنَّف", "الترخيص بالمثل", "غير تجاري", "منع الاشتقاق"]),
    ("bg", "Този отговор използва следните източници, чиито лицензи изискват да бъдат посочени:", ["признание", "споделяне на споделеното", "некомерсиално", "без производни"]),
    ("cs", "Tato odpověď vychází z následujících zdrojů, jejichž licence vyžadují uvedení:", ["uveďte původ", "zachovejte licenci", "neužívejte komerčně", "nezpracovávejte"]),
    ("da", "Dette svar bygger på følgende kilder, hvis licenser kræver, at de nævnes:", ["kreditering", "del på samme vilkår", "ikke-kommerciel", "ingen bearbejdelse"]),
    ("de", "Diese Antwort stützt sich auf folgende Quellen, deren Lizenzen ihre Nennung verlangen:", ["Namensnennung", "Weitergabe unter gleichen Bedingungen", "nicht kommerziell", "keine Bearbeitungen"]),
    ("el", "Αυτή η απάντηση βασίζεται στις ακόλουθες πηγές, των οποίων οι άδειες απαιτούν αναφορά:", ["αναφορά δημιουργού", "παρόμοια διανομή", "μη εμπορική χρήση", "όχι παράγωγα έργα"]),
    ("en", "This answer draws on the following sources, whose licenses ask that they be named:", ["attribution", "share alike", "non-commercial", "no derivatives"]),
    ("es", "Esta respuesta se basa en las siguientes fuentes, cuyas licencias exigen que se citen:", ["reconocimiento", "compartir igual", "no comercial", "sin obra derivada"]),
    ("et", "See vastus tugineb järgmistele allikatele, mille litsentsid nõuavad viitamist:", ["autorile viitamine", "jagamine samadel tingimustel", "mitteäriline eesmärk", "tuletatud teoste keeld"]),
    ("fi", "Tämä vastaus perustuu seuraaviin lähteisiin, joiden lisenssit edellyttävät niiden mainitsemista:", ["nimeä", "jaa samoin", "ei kaupalliseen käyttöön", "ei muutoksia"]),
    ("fr", "Cette réponse s’appuie sur les sources suivantes, dont les licences demandent la mention :", ["attribution", "partage dans les mêmes conditions", "pas d’utilisation commerciale", "pas de modification"]),
    ("ga", "Tá an freagra seo bunaithe ar na foinsí seo a leanas, a n-éilíonn a gceadúnais go n-ainmneofaí iad:", ["sannadh", "comhroinn ar an gcuma chéanna", "neamhthráchtála", "gan saothair dhíorthaithe"]),
    ("hi", "यह उत्तर निम्नलिखित स्रोतों पर आधारित है, जिनके लाइसेंस उनका उल्लेख माँगते हैं:", ["श्रेय", "समान साझाकरण", "ग़ैर-व्यावसायिक", "व्युत्पन्न कार्य नहीं"]),
    ("hr", "Ovaj se odgovor temelji na sljedećim izvorima, čije licence zahtijevaju njihovo navođenje:", ["imenovanje", "dijeli pod istim uvjetima", "nekomercijalno", "bez prerada"]),
    ("hu", "Ez a válasz a következő forrásokra támaszkodik, amelyek licence megköveteli a megnevezésüket:", ["nevezd meg!", "így add tovább!", "ne add el!", "ne változtasd!"]),
    ("id", "Jawaban ini menggunakan sumber-sumber berikut, yang lisensinya meminta agar disebutkan:", ["atribusi", "berbagi serupa", "nonkomersial", "tanpa turunan"]),
    ("it", "Questa risposta si basa sulle seguenti fonti, le cui licenze chiedono di citarle:", ["attribuzione", "condividi allo stesso modo", "non commerciale", "non opere derivate"]),
    ("ja", "この回答は次の資料に基づいています。各ライセンスは出典の表示を求めています。", ["表示", "継承", "非営利", "改変禁止"]),
    ("ko", "이 답변은 다음 자료를 바탕으로 하며, 각 라이선스는 출처 표시를 요구합니다:", ["저작자표시", "동일조건변경허락", "비영리", "변경금지"]),
    ("lt", "Šis atsakymas remiasi toliau nurodytais šaltiniais, kurių licencijos reikalauja juos nurodyti:", ["priskyrimas", "analogiškas platinimas", "nekomercinis naudojimas", "jokių išvestinių darbų"]),
    ("lv", "Šī atbilde balstās uz turpmāk minētajiem avotiem, kuru licences prasa tos norādīt:", ["atsauce", "licences saglabāšana", "nekomerciāls", "bez atvasinājumiem"]),
    ("mt", "Din it-tweġiba hija bbażata fuq is-sorsi li ġejjin, li l-liċenzji tagħhom jitolbu li jissemmew:", ["attribuzzjoni", "qsim bl-istess kundizzjonijiet", "mhux kummerċjali", "mingħajr xogħlijiet derivati"]),
    ("nl", "Dit antwoord steunt op de volgende bronnen, waarvan de licenties naamsvermelding vragen:", ["naamsvermelding", "gelijk delen", "niet-commercieel", "geen afgeleide werken"]),
    ("pl", "Ta odpowiedź opiera się na następujących źródłach, których licencje wymagają ich podania:", ["uznanie autorstwa", "na tych samych warunkach", "użycie niekomercyjne", "bez utworów zależnych"]),
    ("pt", "Esta resposta baseia-se nas seguintes fontes, cujas licenças exigem que sejam citadas:", ["atribuição", "compartilha igual", "não comercial", "sem derivações"]),
    ("ro", "Acest răspuns se bazează pe următoarele surse, ale căror licențe cer menționarea lor:", ["atribuire", "distribuire în condiții identice", "necomercial", "fără modificări"]),
    ("sk", "Táto odpoveď vychádza z nasledujúcich zdrojov, ktorých licencie vyžadujú ich uvedenie:", ["uvedenie autora", "rovnaké šírenie", "nekomerčné použitie", "bez odvodenín"]),
    ("sl", "Ta odgovor temelji na naslednjih virih, katerih licence zahtevajo njihovo navedbo:", ["priznanje avtorstva", "deljenje pod enakimi pogoji", "nekomercialno", "brez predelav"]),
    ("sv", "Detta svar bygger på följande källor, vars licenser kräver att de nämns:", ["erkännande", "dela lika", "icke-kommersiell", "inga bearbetningar"]),
    ("vi", "Câu trả lời này dựa trên các nguồn sau, giấy phép của chúng yêu cầu ghi công:", ["ghi công", "chia sẻ tương tự", "phi thương mại", "không phái sinh"]),
    ("zh", "本回答参考了以下来源，其许可协议要求注明出处：", ["署名", "相同方式共享", "非商业性使用", "禁止演绎"]),
];

/// The phrases of a language tag such as `de` or `pt-BR`; none where there are none.
pub fn of(language: &str) -> Option<&'static Phrases> {
    let code = language.split(['-', '_']).next()?.to_ascii_lowercase();
    PHRASES.binary_search_by(|phrases| phrases.0.cmp(&code)).ok().map(|at| &PHRASES[at])
}

/// What an obligation is called.
pub fn name(phrases: &Phrases, obligation: Obligation) -> &'static str {
    phrases.2[match obligation {
        Obligation::Attribution => 0,
        Obligation::ShareAlike => 1,
        Obligation::NonCommercial => 2,
        Obligation::NoDerivatives => 3,
    }]
}
