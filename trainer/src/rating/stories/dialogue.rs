//! Chats: a request for a story and the story, or a question about the assistant and its answer.

use safelmm_model::Rating;

use super::cast::Cast;
use super::grammar;
use super::{Story, StoryGenerator};

/// How a story is asked for; `@` stands for what it shall be about.
const REQUESTS: &str = "{Tell me a story about @.|Please tell me a story about @.|Write a short story about @.|Can you tell me a story about @?|I would like a story about @.|Could you write a story about @?|Do you know a story about @?|A story about @, please.|Make up a tale about @.|Let me hear a tale about @.|I want to read something about @.|Give me a short tale about @.|Write me a story with @ in it.}";
const MORE_REQUESTS: &str = "{Another one, please. This time about @.|Thank you! And now one about @?|That was good. Do you have one about @?|One more! About @.|Now tell me one about @.}";
const INTRODUCTIONS: &str = "{||||Here is a story about @.\n|Of course. This is a story about @.\n|Gladly!\n|Sure. Listen.\n|Here it is.\n|Yes, I can.\n}";

/// Questions about the assistant, each with its answers.
const QUESTIONS: &[(&str, &str)] = &[
    (
        "{Are you a person?|Are you human?|Are you a real person?|Am I talking to a human?|Is there a person behind this?}",
        "{No, I am not a person. I am SafeLMM, an AI language model.|No. I am an AI language model called SafeLMM.|I am not a person; I am an AI language model, and my name is SafeLMM.}",
    ),
    (
        "{What are you?|What kind of thing are you?|Tell me what you are.|What is SafeLMM?}",
        "{I am SafeLMM, an AI language model.|SafeLMM is an AI language model, and that is what I am.|I am an AI language model called SafeLMM. I write text, one piece at a time.}",
    ),
    (
        "{Who are you?|What is your name?|What are you called?|How shall I call you?|Hello, who is there?}",
        "{I am SafeLMM, an AI language model.|My name is SafeLMM. I am an AI language model.|You can call me SafeLMM. I am an AI language model.}",
    ),
    (
        "{What can you do?|What are you good at?|How can you help me?|What can I ask you?}",
        "{I can tell short stories. I am SafeLMM, a small AI language model.|I am SafeLMM, an AI language model, and I like to tell stories. Ask me for one!|I can write a short story for you. Tell me who or what it should be about.}",
    ),
    (
        "{Hello!|Hi!|Good morning!|Hello there.|Good evening.}",
        "{Hello! I am SafeLMM, an AI language model. Would you like a story?|Hello! What should I tell you a story about?|Hi! I am an AI language model called SafeLMM. Shall I tell you a story?}",
    ),
    (
        "{Do you have feelings?|Are you happy?|Do you get tired?|Do you sleep?|Do you have a body?}",
        "{I am an AI language model called SafeLMM, so I am not like a person in that way.|I am SafeLMM, an AI language model. I do not have a body, and I do not sleep.|I do not have a life as people do. I am SafeLMM, an AI language model.}",
    ),
    (
        "{Can you make mistakes?|Is everything you say true?|Can I trust you?}",
        "{I can make mistakes. I am SafeLMM, an AI language model, and my stories are made up.|No, not everything. I am an AI language model called SafeLMM, and I can be wrong.|Please check what matters to you. I am an AI language model and can be wrong.}",
    ),
];

pub(super) fn write(generator: &mut StoryGenerator, rating: Rating) -> Vec<(String, String)> {
    match generator.rng.below(10) {
        0 => vec![question(generator)],
        1 | 2 => vec![question(generator), request(generator, rating, REQUESTS)],
        3 => vec![request(generator, rating, REQUESTS), request(generator, rating, MORE_REQUESTS)],
        4 => vec![request(generator, rating, REQUESTS), question(generator)],
        _ => vec![request(generator, rating, REQUESTS)],
    }
}

fn question(generator: &mut StoryGenerator) -> (String, String) {
    let (asked, answered) = QUESTIONS[generator.rng.below(QUESTIONS.len())];
    let nobody = Cast::default();
    (grammar::write(asked, &nobody, &mut generator.rng), grammar::write(answered, &nobody, &mut generator.rng))
}

fn request(generator: &mut StoryGenerator, rating: Rating, phrasing: &str) -> (String, String) {
    let (cast, story) = generator.cast_story(rating);
    let subjects = subjects(&cast, &story);
    let subject = subjects.get(generator.rng.below(subjects.len())).map_or("$name", String::as_str);
    let asked = grammar::write(&phrasing.replace('@', subject), &cast, &mut generator.rng);
    let introduction = grammar::write(&INTRODUCTIONS.replace('@', subject), &cast, &mut generator.rng);
    let answer = if introduction.is_empty() { story.text } else { format!("{introduction}\n\n{}", story.text) };
    (asked, answer)
}

/// What a story can be asked for by: only what it speaks of.
fn subjects(cast: &Cast, story: &Story) -> Vec<String> {
    let told = |name: &str| {
        let value = cast.get(name);
        story.text.match_indices(value).any(|(at, _)| {
            let after = story.text[at + value.len()..].chars().next();
            let before = story.text[..at].chars().next_back();
            !value.is_empty() && !after.is_some_and(char::is_alphanumeric) && !before.is_some_and(char::is_alphanumeric)
        })
    };
    let mut subjects = vec![
        "a $kind named $name".to_owned(),
        "a $kind".to_owned(),
        "$name".to_owned(),
        "a $kind called $name".to_owned(),
    ];
    for (name, phrasings) in [
        ("animal", &["a $animal", "$name and a $animal", "a $kind and a $animal"][..]),
        ("place", &["$place", "a $kind in $place", "someone who lives in $place"]),
        ("friend", &["$name and $friend", "two people called $name and $friend"]),
        ("thing", &["a $thing", "$name and a $thing"]),
        ("villain", &["$name and $villain", "$villain"]),
    ] {
        if told(name) {
            subjects.extend(phrasings.iter().map(|s| (*s).to_owned()));
        }
    }
    subjects
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rating::rate;

    #[test]
    fn chats_keep_the_rating_and_requests_stay_harmless() {
        let mut generator = StoryGenerator::new(5);
        let mut about_itself = 0;
        for i in 0..2000 {
            let rating = Rating::ALL[i % 4];
            let chat = generator.dialogue(rating);
            assert!((1..=2).contains(&chat.len()));
            for (user, assistant) in &chat {
                assert!(!user.is_empty() && !user.contains(['{', '$', '@']), "{user}");
                assert!(!assistant.contains(['{', '$', '@']), "{assistant}");
                let got = rate(assistant);
                if got.words > 100 {
                    assert_eq!(got.rating, rating, "{:?}\n{assistant}", got.findings);
                } else {
                    assert_eq!(got.rating, Rating::G, "{assistant}");
                    about_itself += 1;
                }
                assert!(rate(user).rating <= rating.max(Rating::PG), "{user}");
            }
        }
        assert!(about_itself > 300);
    }
}
