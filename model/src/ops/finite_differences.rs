//! Each operation against its reference composition, and its analytic gradient against central differences.

use candle_core::{Device, Result, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

type Function<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

fn random(shape: &[usize], rng: &mut ChaCha8Rng) -> Result<Var> {
    let n = shape.iter().product();
    let data: Vec<f32> = (0..n).map(|_| rng.random_range(-1.5..1.5)).collect();
    Var::from_tensor(&Tensor::from_vec(data, shape, &Device::Cpu)?)
}

/// A scalar that weighs every output differently, so that no gradient cancels.
fn objective(y: &Tensor) -> Result<Tensor> {
    let n = y.elem_count();
    let weights: Vec<f32> = (0..n).map(|i| ((i * 37 % 19) as f32 - 9.0) / 10.0).collect();
    (y.flatten_all()? * Tensor::from_vec(weights, n, &Device::Cpu)?)?.sum_all()
}

fn values(t: &Tensor) -> Result<Vec<f32>> {
    t.flatten_all()?.to_vec1()
}

fn assert_close(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * scale, "{what}[{i}]: {g} against {w}");
    }
}

/// Values and gradients of `fused` against `reference` (1e-5) and against central differences (1e-2 of the largest).
fn check(shapes: &[&[usize]], seed: u64, fused: Function<'_>, reference: Function<'_>) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let vars = shapes.iter().map(|s| random(s, &mut rng)).collect::<Result<Vec<_>>>()?;
    let inputs: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let (y, y_ref) = (fused(&inputs)?, reference(&inputs)?);
    assert_eq!(y.dims(), y_ref.dims());
    assert_close(&values(&y)?, &values(&y_ref)?, 1e-5, "value");
    let (grads, grads_ref) = (objective(&y)?.backward()?, objective(&y_ref)?.backward()?);
    for (which, var) in vars.iter().enumerate() {
        let gradient = values(grads.get(var).expect("a gradient reaches every input"))?;
        let gradient_ref = values(grads_ref.get(var).expect("a gradient reaches every input"))?;
        assert_close(&gradient, &gradient_ref, 1e-5, &format!("gradient {which}"));
        let start = values(var)?;
        let mut numeric = Vec::with_capacity(start.len());
        let h = 1e-2;
        for i in 0..start.len() {
            let at = |delta: f32| -> Result<f32> {
                let mut moved = start.clone();
                moved[i] += delta;
                let mut inputs = inputs.clone();
                inputs[which] = Tensor::from_vec(moved, var.shape(), &Device::Cpu)?;
                objective(&fused(&inputs)?)?.to_scalar()
            };
            numeric.push((at(h)? - at(-h)?) / (2.0 * h));
        }
        assert_close(&gradient, &numeric, 1e-2, &format!("finite difference {which}"));
    }
    Ok(())
}

#[test]
fn rms_norm_has_the_right_gradient() -> Result<()> {
    for (rows, d) in [(3, 8), (70, 5)] {
        check(&[&[rows, d], &[d]], 1, &|t| rms_norm(&t[0], &t[1], 1e-5), &|t| reference::rms_norm(&t[0], &t[1], 1e-5))?;
    }
    Ok(())
}

#[test]
fn swiglu_has_the_right_gradient() -> Result<()> {
    check(&[&[5, 19], &[5, 19]], 2, &|t| swiglu(&t[0], &t[1]), &|t| reference::swiglu(&t[0], &t[1]))
}

#[test]
fn rope_has_the_right_gradient() -> Result<()> {
    let angles: Vec<f32> = (0..4 * 3).map(|i| i as f32 * 0.7).collect();
    let rotation = Rotation::new(angles.iter().map(|a| a.cos()).collect(), angles.iter().map(|a| a.sin()).collect(), 3);
    check(&[&[4, 2, 6]], 3, &|t| rope(&t[0], &rotation), &|t| reference::rope(&t[0], &rotation))
}

#[test]
fn attention_has_the_right_gradient() -> Result<()> {
    let packed = vec![
        Span { queries: 0..5, keys: 0..5 },
        Span { queries: 5..6, keys: 5..6 },
        Span { queries: 6..9, keys: 6..9 },
    ];
    let with_past = vec![Span { queries: 0..2, keys: 0..6 }, Span { queries: 2..4, keys: 6..9 }];
    for (spans, rows) in [(&Spans::from(packed), 9), (&Spans::from(with_past), 4)] {
        for window in [None, Some(2)] {
            check(
                &[&[rows, 4, 3], &[9, 2, 3], &[9, 2, 3]],
                4,
                &|t| attention(&t[0], &t[1], &t[2], spans, window),
                &|t| reference::attention(&t[0], &t[1], &t[2], spans, window),
            )?;
        }
    }
    Ok(())
}

#[test]
fn attention_over_many_blocks_equals_the_reference() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let spans = vec![Span { queries: 0..150, keys: 0..150 }, Span { queries: 150..151, keys: 150..351 }];
    let spans = &Spans::from(spans);
    let (q, k, v) = (random(&[151, 6, 8], &mut rng)?, random(&[351, 2, 8], &mut rng)?, random(&[351, 2, 8], &mut rng)?);
    for window in [None, Some(40), Some(1)] {
        let fused = attention(&q, &k, &v, spans, window)?;
        let want = reference::attention(&q, &k, &v, spans, window)?;
        assert_close(&values(&fused)?, &values(&want)?, 1e-5, "attention");
        let (grads, grads_ref) = (objective(&fused)?.backward()?, objective(&want)?.backward()?);
        for (name, var) in [("q", &q), ("k", &k), ("v", &v)] {
            let (got, want) = (grads.get(var).expect(name), grads_ref.get(var).expect(name));
            assert_close(&values(got)?, &values(want)?, 1e-5, name);
        }
    }
    Ok(())
}

#[test]
fn a_frozen_weight_has_no_gradient_and_its_input_the_right_one() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let weight = random(&[5, 7], &mut rng)?.as_tensor().detach();
    check(&[&[3, 7]], 10, &|t| frozen_linear(&t[0], &weight), &|t| t[0].matmul(&weight.t()?))?;
    let (x, trained) = (random(&[3, 7], &mut rng)?, random(&[5, 7], &mut rng)?);
    let grads = objective(&frozen_linear(&x, &trained)?)?.backward()?;
    assert!(grads.get(&x).is_some() && grads.get(&trained).is_none());
    let frozen = cross_entropy(&x, &weight, &[0, 1, 4], 1e-2)?.loss.backward()?;
    let plain = cross_entropy(&x, Var::from_tensor(&weight)?.as_tensor(), &[0, 1, 4], 1e-2)?.loss.backward()?;
    assert!(frozen.get(&weight).is_none());
    assert_eq!(values(frozen.get(&x).expect("x"))?, values(plain.get(&x).expect("x"))?);
    Ok(())
}

#[test]
fn the_largest_attention_logit_is_that_of_the_keys_that_are_seen() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let (q, k) = (random(&[70, 4, 8], &mut rng)?, random(&[70, 2, 8], &mut rng)?);
    let spans = [Span { queries: 0..66, keys: 0..66 }, Span { queries: 66..70, keys: 66..70 }];
    for window in [None, Some(3)] {
        let (qs, ks) = (q.to_vec3::<f32>()?, k.to_vec3::<f32>()?);
        let mut want = f32::NEG_INFINITY;
        for span in &spans {
            for (i, j) in span.queries.clone().flat_map(|i| span.keys.clone().map(move |j| (i, j))) {
                if j <= i && window.is_none_or(|w| j + w > i) {
                    for head in 0..4 {
                        let dot: f32 = qs[i][head].iter().zip(&ks[j][head / 2]).map(|(a, b)| a * b).sum();
                        want = want.max(dot / 8.0_f32.sqrt());
                    }
                }
            }
        }
        let got = largest_attention_logit(&q, &k, &spans, window)?;
        assert!((got - want).abs() < 1e-5, "{got} against {want}");
    }
    Ok(())
}

#[test]
fn cross_entropy_has_the_right_gradient() -> Result<()> {
    let targets = [3, IGNORE, 0, 6, IGNORE, 2];
    for z_weight in [0.0, 0.05] {
        check(&[&[6, 4], &[7, 4]], 6, &|t| cross_entropy(&t[0], &t[1], &targets, z_weight)?.loss * 3.0, &|t| {
            reference::cross_entropy(&t[0], &t[1], &targets, z_weight)?.loss * 3.0
        })?;
    }
    Ok(())
}

#[test]
fn cross_entropy_over_many_chunks_reports_its_parts() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (hidden, weight) = (random(&[700, 12], &mut rng)?, random(&[33, 12], &mut rng)?);
    let targets: Vec<u32> = (0..700).map(|i| if i % 5 == 0 { IGNORE } else { i % 33 }).collect();
    let (got, want) =
        (cross_entropy(&hidden, &weight, &targets, 1e-3)?, reference::cross_entropy(&hidden, &weight, &targets, 1e-3)?);
    assert_eq!(got.targets, 560);
    let ((nll, z_loss), (want_nll, want_z_loss)) = (got.read()?, want.read()?);
    assert!((nll - want_nll).abs() < 1e-5 && (z_loss - want_z_loss).abs() < 1e-6);
    let log_probs = token_log_probs(&hidden, &weight, &targets)?;
    let mean = -log_probs.iter().map(|p| f64::from(*p)).sum::<f64>() / 560.0;
    assert!((mean - want_nll).abs() < 1e-5);
    assert_close(&log_probs, &reference::token_log_probs(&hidden, &weight, &targets)?, 1e-5, "log-probabilities");
    let (grads, grads_ref) = (got.loss.backward()?, want.loss.backward()?);
    for var in [&hidden, &weight] {
        assert_close(
            &values(grads.get(var).expect("grad"))?,
            &values(grads_ref.get(var).expect("grad"))?,
            1e-4,
            "grad",
        );
    }
    Ok(())
}

#[test]
fn wrong_shapes_are_named() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let (x, w) = (random(&[2, 4], &mut rng)?, random(&[3], &mut rng)?);
    let message = rms_norm(&x, &w, 1e-5).expect_err("shapes differ").to_string();
    assert!(message.contains("[2, 4]") && message.contains('3'), "{message}");
    assert!(cross_entropy(&x, &x, &[0, 2], 0.0).is_err(), "target outside the vocabulary");
    assert!(cross_entropy(&x, &x, &[IGNORE; 2], 0.0).is_err(), "nothing to average");
    Ok(())
}
