//! From the states of a text's tokens to one vector.

/// Which vector stands for the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooling {
    /// The first token's.
    Cls,
    /// The mean over all tokens, special ones included.
    Mean,
    /// The greatest value of each dimension.
    Max,
}

impl Pooling {
    /// `states` is `[tokens, dimensions]`, with at least one token.
    pub fn pooled(self, states: &[Vec<f32>]) -> Vec<f32> {
        let Some((first, others)) = states.split_first() else { return Vec::new() };
        let mut vector = first.clone();
        match self {
            Self::Cls => {}
            Self::Mean => {
                for (i, value) in vector.iter_mut().enumerate() {
                    let sum: f64 = states.iter().map(|state| f64::from(state[i])).sum();
                    *value = (sum / states.len() as f64) as f32;
                }
            }
            Self::Max => {
                for state in others {
                    vector.iter_mut().zip(state).for_each(|(value, other)| *value = value.max(*other));
                }
            }
        }
        vector
    }
}

/// Scales a vector to length 1, as `torch.nn.functional.normalize` does.
pub(super) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pooling_is_what_its_name_says() {
        let states = [vec![1.0, -2.0], vec![3.0, -4.0], vec![-1.0, 0.0]];
        assert_eq!(Pooling::Cls.pooled(&states), [1.0, -2.0]);
        assert_eq!(Pooling::Mean.pooled(&states), [1.0, -2.0]);
        assert_eq!(Pooling::Mean.pooled(&states[..2]), [2.0, -3.0]);
        assert_eq!(Pooling::Max.pooled(&states), [3.0, 0.0]);
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        let mut zero = [0.0, 0.0];
        normalize(&mut zero);
        assert_eq!(zero, [0.0, 0.0]);
    }
}
