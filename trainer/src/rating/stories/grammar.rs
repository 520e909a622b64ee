//! Templates: `{one|other}` is one of the choices (they may nest), `$name` a variable of the story.

use super::cast::Cast;
use super::rng::Rng;

/// Writes a template out: choices made, variables put in, "a" or "an" and capital letters set right.
pub(super) fn write(template: &str, cast: &Cast, rng: &mut Rng) -> String {
    let mut raw = String::new();
    expand(template, cast, rng, &mut raw);
    polish(&raw)
}

fn expand(template: &str, cast: &Cast, rng: &mut Rng, out: &mut String) {
    let mut rest = template;
    while let Some(at) = rest.find(['{', '$']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with('{') {
            let end = closing(rest);
            let choices = split_choices(&rest[1..end]);
            let choice = choices.get(rng.below(choices.len())).copied().unwrap_or_default();
            expand(choice, cast, rng, out);
            rest = rest.get(end + 1..).unwrap_or_default();
        } else {
            let end = rest[1..].find(|c: char| !c.is_ascii_alphabetic()).map_or(rest.len(), |e| e + 1);
            out.push_str(cast.get(&rest[1..end]));
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
}

/// Offset of the brace that closes the one `text` starts with; the end of the text where none does.
fn closing(text: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    text.len()
}

fn split_choices(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut choices) = (0usize, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => {
                choices.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    choices.push(&text[start..]);
    choices
}

/// "a" before a vowel becomes "an"; a sentence starts with a capital; no doubled blanks.
fn polish(raw: &str) -> String {
    let paragraphs = raw.split('\n').map(|paragraph| {
        let words: Vec<&str> = paragraph.split_whitespace().collect();
        let mut out = String::with_capacity(paragraph.len() + 8);
        let mut starts = true;
        for (i, word) in words.iter().enumerate() {
            if i > 0 {
                out.push(' ');
            }
            let next_vowel = words.get(i + 1).is_some_and(|next| takes_an(next));
            let word = match *word {
                "a" if next_vowel => "an",
                "A" if next_vowel => "An",
                word => word,
            };
            let letter = word.find(|c: char| c.is_alphanumeric()).unwrap_or(0);
            if starts && word[letter..].starts_with(|c: char| c.is_ascii_lowercase()) {
                out.push_str(&word[..letter]);
                out.push(word.as_bytes()[letter].to_ascii_uppercase() as char);
                out.push_str(&word[letter + 1..]);
            } else {
                out.push_str(word);
            }
            // after a closing quotation mark the sentence may go on: "Come!" said the fox
            starts = word.ends_with(['.', '!', '?']);
        }
        out
    });
    paragraphs.filter(|p| !p.is_empty()).collect::<Vec<_>>().join("\n\n")
}

fn takes_an(word: &str) -> bool {
    let word = word.trim_start_matches(|c: char| !c.is_alphabetic()).to_ascii_lowercase();
    let sounds_as_consonant = ["one", "once", "uni", "use", "usu", "eu"].iter().any(|s| word.starts_with(s));
    (word.starts_with(['a', 'e', 'i', 'o', 'u']) && !sounds_as_consonant)
        || word.starts_with("hour")
        || word.starts_with("honest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_nest_and_articles_agree() {
        let cast = Cast::default();
        let mut rng = Rng::new(1);
        let all: std::collections::BTreeSet<String> = (0..200)
            .map(|_| write("{a {owl|cat}|an hour}. once {a|}\n\"no.\" said a unicorn", &cast, &mut rng))
            .collect();
        assert_eq!(all.len(), 6, "{all:?}");
        assert!(all.contains("An owl. Once a\n\n\"No.\" said a unicorn"), "{all:?}");
        assert!(all.contains("An hour. Once\n\n\"No.\" said a unicorn"), "{all:?}");
    }

    #[test]
    fn every_template_is_balanced_and_knows_its_variables() {
        for plot in super::super::plots::all() {
            for template in plot.templates() {
                let mut depth = 0i32;
                for c in template.chars() {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    assert!((0..16).contains(&depth), "{template}");
                }
                assert_eq!(depth, 0, "{template}");
                for name in template.split('$').skip(1) {
                    let end = name.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(name.len());
                    assert!(Cast::KNOWN.contains(&&name[..end]), "unknown ${} in {template}", &name[..end]);
                }
            }
        }
    }
}
