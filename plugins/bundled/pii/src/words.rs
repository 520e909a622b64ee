//! Words before a number that say what it is, in 31 languages, in lower case. Each stands for all words that it begins;
//! one with `|` behind it for itself alone.

/// A telephone number follows.
#[rustfmt::skip]
pub const PHONE: &[&str] = &[
    "tel|", "tel.", "tél", "phone", "telephone", "call|", "call me", "mobile", "cell|", "cell phone", "cellphone", "fax", "sms|",
    "whatsapp", "viber", "hotline", "text me", "ring me",
    "telefon", "ruf", "anruf", "handy", "mobil", "rückruf", "erreichbar unter", "durchwahl",
    "téléphon", "appel", "portable|", "teléfono", "telefono", "llám", "llama", "móvil", "celular", "cellulare", "chiam",
    "telefone", "telemóvel", "telemovel", "ligue", "liga-me", "número de contacto", "bel|", "bel me", "telefoon", "mobiel", "gsm|",
    "ring|", "ring mig", "tlf", "puhelin", "puh.", "puh|", "soita", "numero on", "telefoni", "helista", "mob|", "mob.",
    "zadzwoń", "komórk", "dzwoń", "zavolej", "volejte", "mobiln", "zavolaj", "nazovi", "nazovite", "pokliči", "pokličite",
    "sună", "sunați", "sunati", "mobilul", "hívj", "hívd", "hívjon", "skambin", "tālrun", "zvan", "zvani", "тел", "телефон", "обади", "мобил",
    "звони", "τηλ", "κινητό", "καλέστε", "κάλεσ", "ċempel", "ċempli", "mowbajl", "fón", "guthán", "glaoigh",
    "هاتف", "الهاتف", "جوال", "اتصل", "رقم هاتف", "موبايل", "फ़ोन", "फोन", "मोबाइल", "कॉल", "telepon", "hubungi", "nomor hp", "hp|", "ponsel",
    "電話", "携帯", "전화", "휴대폰", "연락처", "핸드폰", "điện thoại", "sđt", "gọi", "số máy", "电话", "手机", "致电", "座机",
];

/// A secret follows: these, an `=`, a `:` or a word such as `is`, and the secret.
#[rustfmt::skip]
pub const SECRET: &[&str] = &[
    "password", "passwd", "passphrase", "pwd", "pass", "pin", "secret", "token", "api key", "api_key", "api-key", "apikey",
    "access key", "access_key", "secret_key", "secret key", "private key", "private_key", "client_secret", "auth_token",
    "access_token", "refresh_token", "credential", "accountkey", "sharedaccesskey",
    "passwort", "kennwort", "zugangscode", "mot de passe", "contraseña", "clave", "palavra-passe", "senha", "parola", "parolă",
    "wachtwoord", "lösenord", "adgangskode", "kodeord", "salasana", "parool", "salasõna", "hasło", "heslo", "lozinka", "zaporka",
    "geslo", "jelszó", "slaptažodis", "parole", "парола", "пароль", "κωδικός", "κωδικός πρόσβασης", "pasfhocal", "كلمة المرور", "كلمة السر", "पासवर्ड",
    "kata sandi", "sandi", "パスワード", "暗証番号", "비밀번호", "암호", "mật khẩu", "密码", "密碼", "口令",
];

/// What stands between such a word and the secret.
#[rustfmt::skip]
pub const IS: &[&str] = &[
    "is", "ist", "lautet", "est", "es", "é", "è", "is:", "är", "er", "on", "jest", "je", "to", "este", "e", "yra", "ir", "е", "είναι", "hija", "هي", "هو",
    "है", "adalah", "は", "は、", "는", "은", "là", "是", "为", "為",
];

/// A passport's number follows.
#[rustfmt::skip]
pub const PASSPORT: &[&str] = &[
    "passport", "reisepass", "passnummer", "passnr", "pass-nr", "pass nr", "pass-nummer", "passeport", "pasaporte", "passaporte", "passaporto", "paspoort",
    "paszport", "pașaport", "pasaport", "pașaportul", "cestovní pas", "cestovného pasu", "cestovní doklad", "čísl pasu", "číslo pasu", "cestovný pas", "putovnic", "potni list",
    "potnega lista", "potnem listu", "útlevél", "útlevel", "passin numero", "passinumero", "passini", "passi number", "passi nr", "reisidokument", "paso numeris", "paso nr", "pasas|",
    "pases numur", "pases nr", "pase nr", "pasnummer", "pasnr", "pas-nr", "pas nr", "passets nummer", "διαβατ", "паспорт", "passaport", "uimhir phas", "uimhir phais", "phas|",
    "جواز سفر", "جواز السفر", "جوازي", "पासपोर्ट", "パスポート", "旅券", "여권", "护照", "護照", "hộ chiếu", "paspor",
];

/// A driving license's number follows.
#[rustfmt::skip]
pub const DRIVING: &[&str] = &[
    "driving licence", "driving license", "driver's license", "driver's licence", "drivers license", "driver license", "driver licence",
    "führerschein", "fahrerlaubnis", "permis de conduire", "permiso de conducir", "permiso de conducción", "carnet de conducir", "carné de conducir", "licencia de conducir",
    "carta de condução", "carteira de motorista", "carteira de habilitação", "cnh|", "patente di guida", "patente|", "rijbewijs", "prawo jazdy", "prawa jazdy", "körkort", "kørekort",
    "ajokort", "juhiluba", "juhiloa", "řidičsk", "vodičsk", "vozačk", "vozniš", "permis de conducere", "permisul de conducere", "permisului de conducere", "jogosítvány", "vezetői engedély",
    "vairuotojo pažymėjim", "vadītāja apliecīb", "autovadītāja", "свидетелство за управление", "шофьорск", "άδεια οδήγησης", "άδειας οδήγησης", "δίπλωμα οδήγησης",
    "liċenzja tas-sewqan", "liċenzja għas-sewqan", "ceadúnas tiomána", "رخصة القيادة", "رخصة قيادة", "ड्राइविंग लाइसेंस", "運転免許", "免許証番号", "운전면허", "驾驶证", "驾照", "駕照",
    "giấy phép lái xe", "bằng lái", "surat izin mengemudi", "nomor sim",
];

/// The number of an identity card follows.
#[rustfmt::skip]
pub const IDENTITY_CARD: &[&str] = &[
    "id card", "identity card", "national id", "personalausweis", "ausweisnummer", "ausweis-nr", "ausweisnr", "ausweis nr", "identitätskarte", "identitätsausweis",
    "carte d'identité", "carte nationale d'identité", "cni|", "documento de identidad", "documento nacional de identidad", "cédula de identidad", "carta d'identità", "documento d'identità",
    "cartão de cidadão", "bilhete de identidade", "identiteitskaart", "identiteitsbewijs", "dowód osobisty", "dowodu osobistego", "dowód nr", "dowodu nr",
    "občansk", "číslo op|", "osobna iskaznica", "osobne iskaznice", "osobnu iskaznicu", "osebna izkaznica", "osebne izkaznice", "osebno izkaznico",
    "személyi igazolvány", "carte de identitate", "carte identitate", "cărții de identitate", "cartea de identitate", "buletin", "лична карта", "личната карта", "личната ми карта",
    "ταυτότητ", "ταυτοτητ", "henkilökort", "id-kaart", "isikutunnistus", "id-kaardi", "asmens tapatyb", "tapatybės kortel", "personas apliecīb", "id-kort", "identitetskort", "legitimation",
    "karta tal-identità", "karta tal-id", "cárta aitheantais", "بطاقة الهوية", "رقم الهوية", "بطاقة هوية", "पहचान पत्र", "kartu tanda penduduk", "ktp|",
    "身分証", "在留カード", "주민등록증", "신분증", "身份证", "身份證", "căn cước", "cccd", "cmnd", "chứng minh nhân dân", "chứng minh thư",
];

/// Names of identity, tax and social security numbers that mean nothing else; the number stands right behind.
#[rustfmt::skip]
pub const NAMED: &[&str] = &[
    "ssn|", "social security number", "social security no", "national insurance number", "nhs number", "pesel", "dni|", "nie|", "nif|", "niss|", "bsn|", "burgerservicenummer", "rijksregisternummer", "cpr|", "cpr-nummer", "cpr nr",
    "personnummer", "henkilötunnus", "hetu|", "isikukood", "asmens kodas", "asmens kodo", "personas kods", "personas koda", "rodné číslo", "rodného čísla", "egn|", "егн", "oib|", "emšo", "cnp|", "cod numeric personal",
    "codice fiscale", "steuer-id", "steueridentifikationsnummer", "steuer-identifikationsnummer", "steuerliche identifikationsnummer", "sozialversicherungsnummer", "svnr", "numéro de sécurité sociale", "n° de sécurité sociale", "numéro de sécu",
    "numéro national", "registre national", "nrn|", "αφμ", "α.φ.μ", "αμκα", "α.μ.κ.α", "adóazonosító jel", "taj-szám", "taj szám", "személyi szám", "személyi azonosító", "ppsn", "pps number", "uimhir psp", "matricule", "karta tal-identità", "davčna številka",
    "national id number", "national identity number", "national identification number", "aadhaar", "आधार नंबर", "आधार संख्या", "nik|", "الرقم القومي", "رقم الهوية", "マイナンバー", "個人番号", "주민등록번호", "주민번호", "身份证号", "身分證字號", "số cccd", "số cmnd", "số căn cước", "cpf|", "fødselsnummer", "kennitala",
];

/// An identity, tax or social security number follows. Behind these its check digits must be right.
#[rustfmt::skip]
pub const IDENTITY: &[&str] = &[
    "id card", "identity", "id number", "id no", "id:", "national id", "personal id", "personal number", "personal code", "identification", "tax id", "tax number", "taxpayer",
    "tin|", "social security", "social insurance", "national insurance", "ssn", "nin|", "citizen number",
    "ausweis", "identität", "identifikation", "steuer", "sozialversicherung", "identité", "identification", "sécurité sociale", "sécu", "fiscal",
    "identidad", "identificación", "fiscale", "identità", "contribuinte", "identidade", "identificação", "identiteit", "rijksregister", "numéro national", "nationaal nummer",
    "tożsamości", "dowod", "dowód", "identyfikac", "podatk", "totožnosti", "občan", "daňov", "osobn", "osebn", "iskaznic", "izkaznic", "identifikac", "porezni", "személyi", "azonosító", "igazolvány", "adó",
    "identitate", "buletin", "cod numeric", "fiscal", "лична карта", "личен номер", "граждански", "данъч", "ταυτότητ", "ταυτοτητ", "φορολογ", "μητρώο", "henkilö", "isiku", "asmens", "mokesčių", "personas", "nodokļu",
    "personnummer", "identitet", "skatte", "person-nr", "cpr", "identità", "taxxa", "aitheantais", "cáin", "هوية", "الرقم القومي", "ضريبي", "पहचान", "आधार", "ktp|", "nik|", "npwp", "身分", "個人番号", "주민", "身份", "căn cước", "cccd", "cmnd", "mã số thuế",
];
