//! The gate: how much of the next token's probability each source gets, by what retrieval found.
//!
//! A fixed interpolation hurts most tokens of open generation (Wang et al. 2023; Drozdov et al. 2022 make λ a function of
//! the distance of what was retrieved). Here the weights of a mixture (Jelinek and Mercer 1980) depend on a bucket of
//! signals: how long a context the n-gram index matched and whether it always went on alike, how sure the neighbours are,
//! and how sure the model is. The weights are those that make held-out text most probable, found by expectation
//! maximisation, with the more general buckets as the prior of the special ones. Where neighbours gain next to nothing by what
//! is known before they are asked, they are not asked (adaptive retrieval: He et al. 2021, section 4.1).

use serde::{Deserialize, Serialize};

/// Upper ends of the classes of matched lengths, in tokens; longer matches are one more class.
const MATCHED: [usize; 7] = [1, 2, 3, 4, 6, 9, 15];
/// Ends of the classes of the greatest probability that the neighbours give to a token.
const NEIGHBOURS: [f32; 3] = [0.3, 0.6, 0.9];
/// Ends of the classes of the greatest probability that the model gives to a token.
const MODEL: [f32; 3] = [0.2, 0.5, 0.8];

/// No match, and each class of lengths with one continuation or with several.
const MATCH_CLASSES: usize = 1 + 2 * (MATCHED.len() + 1);
/// No neighbours, and each class of their confidence.
const NEIGHBOUR_CLASSES: usize = 2 + NEIGHBOURS.len();
const MODEL_CLASSES: usize = 1 + MODEL.len();
/// Buckets of signals.
const BUCKETS: usize = MATCH_CLASSES * NEIGHBOUR_CLASSES * MODEL_CLASSES;

/// How many observations the prior of a bucket counts as.
const PRIOR: f64 = 24.0;
/// Rounds of expectation maximisation; each one makes the observations more probable.
const ROUNDS: usize = 40;
/// A source with less than this need not be asked.
const NEGLIGIBLE: f32 = 0.01;
/// What may be lost by not asking neighbours, in nats for each token of the text.
const TOLERANCE: f64 = 0.005;

/// The shares of the neighbours and of the n-gram index in the next token's probability; the model has the rest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// Share of the nearest neighbours, λ of kNN-LM.
    pub neighbours: f32,
    /// Share of the continuations of the longest matched context.
    pub ngram: f32,
}

/// What is known before the weights are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signals {
    /// Tokens of the longest context that the n-gram index matched; 0 without a match.
    pub matched: usize,
    /// Whether that context always went on with the same token.
    pub sparse: bool,
    /// The greatest probability that the neighbours give to a token; none where there are no neighbours.
    pub neighbours: Option<f32>,
    /// The greatest probability that the model gives to a token.
    pub model: f32,
}

impl Signals {
    fn match_class(&self) -> usize {
        match self.matched {
            0 => 0,
            n => 1 + 2 * MATCHED.partition_point(|end| n > *end) + usize::from(self.sparse),
        }
    }

    fn neighbour_class(&self) -> usize {
        self.neighbours.map_or(0, |sure| 1 + NEIGHBOURS.partition_point(|end| sure > *end))
    }

    fn bucket(&self) -> usize {
        let model = MODEL.partition_point(|end| self.model > *end);
        (self.match_class() * NEIGHBOUR_CLASSES + self.neighbour_class()) * MODEL_CLASSES + model
    }

    /// The class of what is known before neighbours are asked.
    fn known_class(&self) -> usize {
        self.match_class() * MODEL_CLASSES + self.bucket() % MODEL_CLASSES
    }

    /// What is left of a bucket when the model is not looked at.
    fn without_model(bucket: usize) -> usize {
        bucket / MODEL_CLASSES
    }

    fn match_of(bucket: usize) -> usize {
        bucket / (MODEL_CLASSES * NEIGHBOUR_CLASSES)
    }
}

/// The weights of every bucket of signals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Weights>", into = "Vec<Weights>")]
pub struct Gate(Vec<Weights>);

/// A token of held-out text: what was known before it, and what each source said of it.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// What was known.
    pub signals: Signals,
    /// The token's probability under the model, the neighbours and the n-gram index.
    pub probabilities: [f32; 3],
}

impl Observation {
    /// As if neighbours had not been asked.
    pub fn without_neighbours(&self) -> Observation {
        let [model, _, ngram] = self.probabilities;
        Observation { signals: Signals { neighbours: None, ..self.signals }, probabilities: [model, 0.0, ngram] }
    }
}

impl Default for Gate {
    /// For stores that have not been tuned: what repeats verbatim is trusted the more the longer it does, neighbours the
    /// more the surer they are, and little is given away where the model is sure.
    fn default() -> Self {
        let weights = |bucket: usize| {
            let (class, model) = (Signals::match_of(bucket), bucket % MODEL_CLASSES);
            let neighbours = Signals::without_model(bucket) % NEIGHBOUR_CLASSES;
            let ngram = match class {
                0 => 0.0,
                class => {
                    let (length, sparse) = ((class - 1) / 2, (class - 1) % 2);
                    [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.7][length] + 0.05 * length.min(4) as f32 * sparse as f32
                }
            };
            let neighbours = [0.0, 0.1, 0.15, 0.25, 0.35][neighbours] * [1.0, 0.8, 0.5, 0.25][model] * (1.0 - ngram);
            Weights { neighbours, ngram }
        };
        Gate((0..BUCKETS).map(weights).collect())
    }
}

/// Why weights cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// Of another version.
    #[error("the gate has {0} buckets, expected {BUCKETS}: tune the store again with `safelmm store tune`")]
    Buckets(usize),
    /// Not a mixture.
    #[error("the gate gives the sources {} and {} of the probability, expected shares from 0 that sum to at most 1", .0.neighbours, .0.ngram)]
    Shares(Weights),
}

impl TryFrom<Vec<Weights>> for Gate {
    type Error = GateError;

    fn try_from(weights: Vec<Weights>) -> Result<Gate, GateError> {
        if weights.len() != BUCKETS {
            return Err(GateError::Buckets(weights.len()));
        }
        let is_share = |w: &Weights| w.neighbours >= 0.0 && w.ngram >= 0.0 && w.neighbours + w.ngram <= 1.0 + 1e-6;
        match weights.iter().find(|weights| !is_share(weights)) {
            Some(weights) => Err(GateError::Shares(*weights)),
            None => Ok(Gate(weights)),
        }
    }
}

impl From<Gate> for Vec<Weights> {
    fn from(gate: Gate) -> Vec<Weights> {
        gate.0
    }
}

impl Gate {
    /// The weights for these signals.
    pub fn weights(&self, signals: &Signals) -> Weights {
        let Weights { neighbours, ngram } = self.0[signals.bucket()];
        // A source that found nothing has nothing to give.
        Weights {
            neighbours: if signals.neighbours.is_some() { neighbours } else { 0.0 },
            ngram: if signals.matched > 0 { ngram } else { 0.0 },
        }
    }

    /// Whether the neighbours could matter, whatever they turn out to be; `signals` without them.
    pub fn wants_neighbours(&self, signals: &Signals) -> bool {
        let least = [0.0, 0.5, 0.8, 1.0].map(|sure| Signals { neighbours: Some(sure), ..*signals });
        least.iter().any(|signals| self.0[signals.bucket()].neighbours > NEGLIGIBLE)
    }

    /// The gate under which the observations are most probable. Buckets with few of them stay near the weights of more
    /// general ones: the same match and neighbours whatever the model says, the same match, all together. Neighbours are not
    /// asked where they gain least, as long as all that is lost so stays below a tolerance.
    pub fn fit(observations: &[Observation]) -> Gate {
        let mut gate = Gate::asking_always(observations);
        let alone: Vec<Observation> = observations.iter().map(Observation::without_neighbours).collect();
        // What is done where no neighbours are found is what is done where none are asked.
        let without = Gate::asking_always(&alone);
        let mut gains = [(0.0, 0_usize); MATCH_CLASSES * MODEL_CLASSES];
        for (observation, alone) in observations.iter().zip(&alone) {
            let (gain, count) = &mut gains[alone.signals.known_class()];
            *gain += f64::from(gate.probability(observation).max(f32::MIN_POSITIVE)).ln()
                - f64::from(without.probability(alone).max(f32::MIN_POSITIVE)).ln();
            *count += 1;
        }
        let mut classes: Vec<usize> = (0..gains.len()).collect();
        let each = |class: &usize| gains[*class].0 / gains[*class].1.max(1) as f64;
        classes.sort_by(|a, b| each(a).total_cmp(&each(b)));
        let mut room = TOLERANCE * observations.len() as f64;
        for class in classes {
            let (gain, count) = gains[class];
            // Of what was never seen, the more general weights decide.
            let unasked = count > 0 && gain <= room;
            room -= if unasked { gain.max(0.0) } else { 0.0 };
            let bucket = |neighbours: usize| {
                let (matched, model) = (class / MODEL_CLASSES, class % MODEL_CLASSES);
                (matched * NEIGHBOUR_CLASSES + neighbours) * MODEL_CLASSES + model
            };
            let end = if unasked { NEIGHBOUR_CLASSES } else { 1 };
            (0..end).for_each(|neighbours| gate.0[bucket(neighbours)] = without.0[bucket(0)]);
        }
        gate
    }

    /// The probability of an observed token.
    pub fn probability(&self, Observation { signals, probabilities: [model, neighbours, ngram] }: &Observation) -> f32 {
        let weights = self.weights(signals);
        (1.0 - weights.neighbours - weights.ngram) * model + weights.neighbours * neighbours + weights.ngram * ngram
    }

    /// What is known of a token when neighbours are asked as this gate wants them.
    pub fn asked(&self, observation: &Observation) -> Observation {
        let alone = observation.without_neighbours();
        if self.wants_neighbours(&alone.signals) { *observation } else { alone }
    }

    fn asking_always(observations: &[Observation]) -> Gate {
        let all = Mixture::fit(observations.iter(), &Mixture::EVEN);
        let by_match = group(observations, MATCH_CLASSES, |o| o.signals.match_class(), |_| all);
        let by_sources = group(
            observations,
            MATCH_CLASSES * NEIGHBOUR_CLASSES,
            |o| Signals::without_model(o.signals.bucket()),
            |class| by_match[class / NEIGHBOUR_CLASSES],
        );
        let buckets =
            group(observations, BUCKETS, |o| o.signals.bucket(), |bucket| by_sources[Signals::without_model(bucket)]);
        let weights =
            |Mixture([_, neighbours, ngram]): Mixture| Weights { neighbours: neighbours as f32, ngram: ngram as f32 };
        Gate(buckets.into_iter().map(weights).collect())
    }
}

fn group(
    observations: &[Observation],
    groups: usize,
    of: impl Fn(&Observation) -> usize,
    prior: impl Fn(usize) -> Mixture,
) -> Vec<Mixture> {
    let mut members: Vec<Vec<&Observation>> = vec![Vec::new(); groups];
    for observation in observations {
        members[of(observation)].push(observation);
    }
    members.into_iter().enumerate().map(|(i, members)| Mixture::fit(members.into_iter(), &prior(i))).collect()
}

/// Weights of the model, the neighbours and the n-gram index; they sum to 1.
#[derive(Clone, Copy, Debug)]
struct Mixture([f64; 3]);

impl Mixture {
    const EVEN: Mixture = Mixture([1.0 / 3.0; 3]);

    /// Maximum a posteriori under a Dirichlet prior around `prior` (expectation maximisation).
    fn fit<'a>(observations: impl Iterator<Item = &'a Observation> + Clone, prior: &Mixture) -> Mixture {
        let mut weights = *prior;
        for _ in 0..ROUNDS {
            let mut counts = prior.0.map(|w| w * PRIOR);
            for observation in observations.clone() {
                let parts: [f64; 3] = std::array::from_fn(|i| weights.0[i] * f64::from(observation.probabilities[i]));
                let sum: f64 = parts.iter().sum();
                if sum > 0.0 {
                    counts.iter_mut().zip(&parts).for_each(|(count, part)| *count += part / sum);
                }
            }
            let sum: f64 = counts.iter().sum();
            weights = Mixture(counts.map(|count| count / sum));
        }
        weights
    }
}

/// The share λ of one source under which the observations are most probable, from pairs of the model's and the source's
/// probability of a token.
pub fn fit_lambda(pairs: impl Iterator<Item = (f32, f32)> + Clone) -> f32 {
    let mut lambda = 0.5f64;
    for _ in 0..ROUNDS {
        let (mut source, mut all) = (0.0, 0.0);
        for (model, own) in pairs.clone() {
            let (model, own) = ((1.0 - lambda) * f64::from(model), lambda * f64::from(own));
            if model + own > 0.0 {
                source += own / (model + own);
                all += 1.0;
            }
        }
        if all == 0.0 {
            return 0.0;
        }
        lambda = source / all;
    }
    lambda as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_signals() -> impl Iterator<Item = Signals> {
        [0, 1, 2, 3, 4, 5, 8, 12, 99].into_iter().flat_map(|matched| {
            [false, true].into_iter().flat_map(move |sparse| {
                [None, Some(0.1), Some(0.5), Some(0.8), Some(1.0)].into_iter().flat_map(move |neighbours| {
                    [0.1, 0.3, 0.6, 1.0].map(|model| Signals { matched, sparse, neighbours, model })
                })
            })
        })
    }

    #[test]
    fn every_signal_has_a_bucket_and_every_bucket_is_a_mixture() {
        let mut seen = std::collections::BTreeSet::new();
        let gate = Gate::default();
        for signals in all_signals() {
            seen.insert(signals.bucket());
            let Weights { neighbours, ngram } = gate.weights(&signals);
            assert!(neighbours >= 0.0 && ngram >= 0.0 && neighbours + ngram <= 1.0, "{signals:?}");
            assert!(signals.neighbours.is_some() || neighbours == 0.0);
            assert!(signals.matched > 0 || ngram == 0.0);
        }
        // Without a match it makes no difference whether it would be sparse.
        assert_eq!((seen.len(), seen.last()), (BUCKETS, Some(&(BUCKETS - 1))));
    }

    #[test]
    fn the_fit_finds_the_weights_that_made_the_text() {
        // Tokens are right by the n-gram index three times of four after long matches, by the model after none.
        let long = Signals { matched: 20, sparse: true, neighbours: Some(0.5), model: 0.1 };
        let none = Signals { neighbours: Some(0.5), model: 0.1, ..Signals::default() };
        let mut observations = Vec::new();
        for i in 0..4000 {
            let right = i % 4 != 0;
            observations.push(Observation { signals: long, probabilities: [0.1, 0.1, f32::from(u8::from(right))] });
            observations.push(Observation { signals: none, probabilities: [0.4, 0.01, 0.0] });
        }
        let gate = Gate::fit(&observations);
        // The mixture's optimum: 3/4 · log(0.1 (1 − w) + w) + 1/4 · log(0.1 (1 − w)).
        assert!((gate.weights(&long).ngram - 0.722).abs() < 0.03, "{:?}", gate.weights(&long));
        assert!(gate.weights(&none).neighbours < 0.02 && gate.weights(&none).ngram == 0.0);
        assert!(!gate.wants_neighbours(&Signals { neighbours: None, ..none }));
        let unseen = Signals { model: 0.9, ..long };
        assert!(
            (gate.weights(&unseen).ngram - 0.72).abs() < 0.1,
            "the more general buckets speak where nothing was seen"
        );
    }

    #[test]
    fn neighbours_are_asked_only_where_they_gain() {
        // After long matches the n-gram index is right, and the neighbours say the same; elsewhere only they know.
        let long = Signals { matched: 20, sparse: true, neighbours: Some(0.95), model: 0.1 };
        let none = Signals { neighbours: Some(0.95), model: 0.1, ..Signals::default() };
        let mut observations = Vec::new();
        for i in 0..2000 {
            observations.push(Observation { signals: long, probabilities: [0.1, 0.98, 1.0] });
            let right = f32::from(u8::from(i % 2 == 0));
            observations.push(Observation { signals: none, probabilities: [0.1, right, 0.0] });
        }
        let gate = Gate::fit(&observations);
        let asks = |signals: Signals| gate.wants_neighbours(&Signals { neighbours: None, ..signals });
        assert!(!asks(long) && asks(none));
        let alone = Observation { signals: long, probabilities: [0.1, 0.98, 1.0] };
        assert_eq!(gate.asked(&alone).signals.neighbours, None);
        assert!(gate.probability(&gate.asked(&alone)) > 0.98);
    }

    #[test]
    fn one_share_is_found_and_nothing_observed_gives_none() {
        let pairs = (0..1000).map(|i| if i % 2 == 0 { (0.5, 0.0) } else { (0.0, 0.5) });
        assert!((fit_lambda(pairs) - 0.5).abs() < 1e-3);
        assert_eq!(fit_lambda(std::iter::empty()), 0.0);
        assert!(fit_lambda([(0.5f32, 0.1f32)].into_iter().cycle().take(100)) < 0.01);
    }

    #[test]
    fn weights_survive_a_manifest_and_nonsense_does_not() {
        let text = serde_json::to_string(&Gate::default()).unwrap();
        assert_eq!(serde_json::from_str::<Gate>(&text).unwrap(), Gate::default());
        let few = serde_json::from_str::<Gate>("[]").unwrap_err().to_string();
        assert!(few.contains("safelmm store tune"), "{few}");
        let mut weights: Vec<Weights> = Gate::default().into();
        weights[3].ngram = 1.5;
        assert!(Gate::try_from(weights).is_err());
    }
}
