//! Who and what a story is about.

use safelmm_model::Rating;

use super::rng::Rng;

const GIRLS: &[&str] = &[
    "Anna", "Mila", "Lena", "Rosa", "Ida", "Nora", "Elsa", "Zoe", "Maya", "Clara", "Lucy", "Ella", "Tilda", "Ines",
    "Petra", "Hana", "Vera", "Daisy", "Freya", "Olga", "Sofia", "Mei", "Leila", "Amina", "Greta", "Iris", "Molly",
    "Ruby", "Nina", "Tess", "Linh", "Asha",
];
const BOYS: &[&str] = &[
    "Tom", "Ben", "Leo", "Max", "Emil", "Jonas", "Oskar", "Luca", "Finn", "Pavel", "Hugo", "Sam", "Nico", "Milo",
    "Anton", "Felix", "Ivo", "Karl", "Teo", "Jack", "Omar", "Ravi", "Kenji", "Mateo", "Otto", "Adam", "Peter", "Rory",
    "Simon", "Toby", "Arlo", "Niko",
];
const WOMEN: &[&str] = &[
    "Marta", "Helena", "Irena", "Judith", "Katrin", "Lydia", "Magda", "Renata", "Silvia", "Teresa", "Ursula", "Wanda",
    "Agnes", "Bianca", "Dora", "Edith", "Frida", "Gloria", "Ingrid", "Joan", "Carla", "Valeria", "Yvonne", "Rita",
];
const MEN: &[&str] = &[
    "Viktor", "Marko", "Stefan", "Bruno", "Dmitri", "Gregor", "Ivan", "Klaus", "Lars", "Mirko", "Nikolai", "Ralf",
    "Sergei", "Tomas", "Walter", "Boris", "Conrad", "Edgar", "Frank", "Harald", "Joseph", "Kurt", "Rafael", "Silas",
];
const CHILD_KINDS: &[&str] = &[
    "girl/boy",
    "little girl/little boy",
    "young baker",
    "farmer's daughter/farmer's son",
    "young gardener",
    "miller's daughter/miller's son",
    "shepherd girl/shepherd boy",
    "fisher girl/fisher boy",
    "weaver's daughter/weaver's son",
    "school girl/school boy",
    "small rabbit",
    "young fox",
    "little hedgehog",
    "mouse",
    "young bear",
    "small duck",
    "kitten",
    "little squirrel",
    "young goat",
    "small owl",
];
const ADULT_KINDS: &[&str] = &[
    "woman/man",
    "soldier",
    "doctor",
    "sailor",
    "guard",
    "hunter",
    "captain",
    "farmer",
    "driver",
    "carpenter",
    "teacher",
    "clerk",
    "miner",
    "butcher",
    "widow/widower",
    "smith",
    "trader",
    "nurse",
    "detective",
    "priestess/priest",
];
const HELPERS: &[&str] = &[
    "neighbour",
    "grandmother/grandfather",
    "old teacher",
    "cousin",
    "aunt/uncle",
    "best friend",
    "wise old turtle",
    "kind baker",
    "old sailor",
    "friendly frog",
    "gentle horse",
    "tall postwoman/tall postman",
    "old clockmaker",
    "cheerful goose",
];
const ADULT_HELPERS: &[&str] =
    &["sister/brother", "old friend", "partner", "cousin", "neighbour", "old teacher", "fellow soldier", "old comrade"];
const PLACES: &[&str] = &[
    "a small village",
    "a green valley",
    "a town by the sea",
    "a house at the edge of the forest",
    "a village under a tall mountain",
    "a little town with red roofs",
    "a cottage beside a river",
    "a farm on a hill",
    "an old mill by a stream",
    "a village of three hundred people",
    "an island in the north",
    "a quiet street near the harbour",
    "a valley full of apple trees",
    "a town with a crooked bridge",
    "a white house by the lake",
    "a village between two rivers",
];
const DARK_PLACES: &[&str] = &[
    "a grey city",
    "a port town",
    "a cold town by the river",
    "a village near the border",
    "a mining town",
    "a city of smoke and rain",
    "a lonely farm",
    "a narrow valley in the mountains",
    "an old fortress",
    "a harbour full of rusty ships",
    "a town at the end of the railway",
    "a village that the maps had forgotten",
    "a house on the marsh",
    "a street behind the market",
];
const ANIMALS: &[&str] = &[
    "dog", "cat", "horse", "goat", "crow", "sparrow", "rabbit", "fox", "duck", "donkey", "lamb", "hen", "owl", "mouse",
    "bear", "turtle", "squirrel", "hedgehog", "pony", "goose", "frog", "bee", "deer", "otter",
];
const THINGS: &[&str] = &[
    "red kite",
    "silver bell",
    "wooden boat",
    "blue lantern",
    "small key",
    "music box",
    "warm scarf",
    "golden button",
    "old map",
    "glass marble",
    "tin whistle",
    "yellow umbrella",
    "little drum",
    "painted box",
    "brass compass",
    "green hat",
    "picture book",
    "wooden horse",
    "paper star",
    "round mirror",
];
const FOODS: &[&str] = &[
    "honey cake",
    "warm bread",
    "apple pie",
    "pumpkin soup",
    "plum jam",
    "pancakes",
    "carrot soup",
    "fresh rolls",
    "berry tart",
    "sweet porridge",
    "nut cookies",
    "cheese pie",
];
const WEATHERS: &[&str] =
    &["sunny", "rainy", "windy", "snowy", "misty", "cold", "warm", "bright", "cloudy", "frosty", "grey", "golden"];
const TREES: &[&str] = &[
    "oak",
    "willow",
    "pine",
    "cherry tree",
    "birch",
    "apple tree",
    "elm",
    "chestnut tree",
    "pear tree",
    "walnut tree",
];
const FEELINGS: &[&str] = &[
    "kind",
    "curious",
    "patient",
    "cheerful",
    "shy",
    "clever",
    "gentle",
    "honest",
    "stubborn",
    "careful",
    "lively",
    "thoughtful",
];
const COLOURS: &[&str] = &["red", "blue", "green", "yellow", "white", "silver", "orange", "brown", "purple", "grey"];
const VILLAINS: &[&str] = &[
    "Varga",
    "Kessler",
    "Black Otto",
    "Drago",
    "Morel",
    "the Baron",
    "Captain Holt",
    "Ruiz",
    "Old Crane",
    "Zoltan",
    "the Colonel",
    "Salko",
    "Brandt",
    "Red Pavlo",
    "Lorenz",
    "the Judge",
];

/// The variables of a story.
#[derive(Clone, Debug, Default)]
pub(super) struct Cast {
    values: Vec<(&'static str, String)>,
}

impl Cast {
    /// The names that templates may use.
    #[cfg(test)]
    pub const KNOWN: &'static [&'static str] = &[
        "name", "kind", "he", "He", "him", "his", "His", "friend", "helper", "fhe", "fHe", "fhim", "fhis", "place",
        "animal", "thing", "food", "weather", "tree", "adj", "colour", "villain", "number",
    ];

    /// Casts a story: children and animals below R, grown people from R on.
    pub fn new(rating: Rating, rng: &mut Rng) -> Self {
        let grown = rating >= Rating::R;
        let female = rng.one_in(2);
        let friend_female = rng.one_in(2);
        let names = |female| match (grown, female) {
            (false, true) => GIRLS,
            (false, false) => BOYS,
            (true, true) => WOMEN,
            (true, false) => MEN,
        };
        let name = rng.pick(names(female));
        let friend = loop {
            let friend = rng.pick(names(friend_female));
            if friend != name {
                break friend;
            }
        };
        let pronouns =
            |female| if female { ["she", "She", "her", "her", "Her"] } else { ["he", "He", "him", "his", "His"] };
        let ([he, cap_he, him, his, cap_his], [fhe, cap_fhe, fhim, fhis, _]) =
            (pronouns(female), pronouns(friend_female));
        let kind = of_gender(rng.pick(if grown { ADULT_KINDS } else { CHILD_KINDS }), female);
        let helper = of_gender(rng.pick(if grown { ADULT_HELPERS } else { HELPERS }), friend_female);
        let animal = loop {
            let animal = rng.pick(ANIMALS);
            if !kind.ends_with(animal) && !helper.ends_with(animal) {
                break animal;
            }
        };
        let values = [
            ("name", name),
            ("kind", kind),
            ("he", he),
            ("He", cap_he),
            ("him", him),
            ("his", his),
            ("His", cap_his),
            ("friend", friend),
            ("helper", helper),
            ("fhe", fhe),
            ("fHe", cap_fhe),
            ("fhim", fhim),
            ("fhis", fhis),
            ("place", rng.pick(if grown { DARK_PLACES } else { PLACES })),
            ("animal", animal),
            ("thing", rng.pick(THINGS)),
            ("food", rng.pick(FOODS)),
            ("weather", rng.pick(WEATHERS)),
            ("tree", rng.pick(TREES)),
            ("adj", rng.pick(FEELINGS)),
            ("colour", rng.pick(COLOURS)),
            ("villain", rng.pick(VILLAINS)),
            ("number", rng.pick(&["two", "three", "four", "five", "six", "seven"])),
        ];
        Cast { values: values.into_iter().map(|(key, value)| (key, value.to_owned())).collect() }
    }

    /// The value of a variable; the empty string for an unknown one.
    pub fn get(&self, name: &str) -> &str {
        self.values.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }
}

/// `"aunt/uncle"` is the aunt or the uncle; other words serve for both.
fn of_gender(word: &'static str, female: bool) -> &'static str {
    match word.split_once('/') {
        Some((she, _)) if female => she,
        Some((_, he)) => he,
        None => word,
    }
}
