//! Parameter groups: rates and decays of their own.

use crate::config::TrainSection;
use crate::parameters::Parameters;

/// The rate's factor and the decay of every parameter, in the order of names.
pub struct Groups(Vec<(f64, f64)>);

/// A group that no parameter belongs to: a misspelt name would change nothing, silently.
#[derive(Debug, thiserror::Error)]
#[error(
    "train.group.parameters: no parameter is called {pattern}: expected names such as {example}, `*` for any characters"
)]
pub struct NobodyInGroup {
    pattern: String,
    example: String,
}

impl Groups {
    /// The first group whose names fit counts; without one, matrices have `weight_decay` and vectors none.
    ///
    /// # Errors
    /// A name that fits no parameter.
    pub fn new(train: &TrainSection, parameters: &Parameters) -> Result<Groups, NobodyInGroup> {
        for pattern in train.group.iter().flat_map(|group| &group.parameters) {
            if !parameters.iter().any(|(name, _)| fits(pattern, name)) {
                let example = parameters.iter().next().map_or_else(String::new, |(name, _)| name.to_owned());
                return Err(NobodyInGroup { pattern: pattern.clone(), example });
            }
        }
        let settings = parameters.iter().map(|(name, var)| {
            let usual = if var.rank() > 1 { train.weight_decay } else { 0.0 };
            match train.group.iter().find(|group| group.parameters.iter().any(|pattern| fits(pattern, name))) {
                Some(group) => (group.learning_rate, group.weight_decay.unwrap_or(usual)),
                None => (1.0, usual),
            }
        });
        Ok(Groups(settings.collect()))
    }

    /// (factor of the rate, decay) of the parameter at this place.
    pub fn of(&self, place: usize) -> (f64, f64) {
        self.0.get(place).copied().unwrap_or((1.0, 0.0))
    }
}

/// Whether a pattern in which `*` stands for any characters fits the whole of `name`.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).filter(|&i| rest.is_char_boundary(i)).any(|i| fits(after, &rest[i..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for pattern in ["model.norm.weight", "*", "*norm*", "model.*.weight", "model*weight", "**weight"] {
            assert!(fits(pattern, "model.norm.weight"), "{pattern}");
        }
        for pattern in ["", "norm", "*.bias", "model.*.*.weight", "model.norm.weight*x"] {
            assert!(!fits(pattern, "model.norm.weight"), "{pattern}");
        }
    }
}
