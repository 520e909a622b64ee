//! The decoder and its operations on an NVIDIA GPU beside the CPU: values and gradients. Where no GPU answers, the tests
//! say so and pass.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safelmm_model::device::{DeviceName, Precision};
use safelmm_model::ops::{
    IGNORE, Rotation, Span, Spans, Update, adamw, add, add_to, attention, cross_entropy, embedding, linear, norm_rope,
    record, rms_norm, rope, squares, swiglu, token_log_probs,
};
use safelmm_model::{
    Checkpoint, Config, Decoder, Generation, GenerationRequest, ParameterSource, SamplingParams, Work, step,
};

/// Errors against f32 on the CPU, as norms of differences over norms: f32 differs by the order of sums, bf16 keeps 8 bits
/// of every value that is written, and of attention's probabilities.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F32 { 1e-5 } else { 1e-2 }
}

fn gpu() -> Option<Device> {
    match DeviceName::Cuda(0).open() {
        Ok(device) => Some(device),
        Err(reason) => {
            eprintln!("skipped: {reason}");
            None
        }
    }
}

fn values(t: &Tensor) -> Result<Vec<f32>> {
    t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

fn assert_near(got: &Tensor, want: &Tensor, tolerance: f64, what: &str) -> Result<()> {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let (got, want) = (values(got)?, values(want)?);
    let norm = |each: &mut dyn Iterator<Item = f32>| each.map(|v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
    let apart = norm(&mut got.iter().zip(&want).map(|(g, w)| g - w)) / norm(&mut want.iter().copied()).max(1e-2);
    assert!(apart <= tolerance, "{what}: {apart:.2e} apart, at most {tolerance:.0e}");
    Ok(())
}

fn random(shape: &[usize], dtype: DType, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let data: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.5..1.5)).collect();
    // What bf16 can hold, so that both sides begin with the same numbers.
    Tensor::from_vec(data, shape, &Device::Cpu)?.to_dtype(dtype)?.to_dtype(DType::F32)
}

/// One input of an operation.
enum Input<'a> {
    /// In the type of activations.
    Activation(&'a [usize]),
    /// In f32.
    Weight(&'a [usize]),
}

/// An operation on the GPU, in f32 and in bf16, against itself on the CPU: values, and gradients of all inputs.
fn check(what: &str, device: &Device, inputs: &[Input<'_>], op: &dyn Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
    for dtype in [DType::F32, DType::BF16] {
        let mut rng = ChaCha8Rng::seed_from_u64(17);
        let (mut here, mut there) = (Vec::new(), Vec::new());
        for input in inputs {
            let (shape, dtype) = match input {
                Input::Activation(shape) => (*shape, dtype),
                Input::Weight(shape) => (*shape, DType::F32),
            };
            let tensor = random(shape, dtype, &mut rng)?;
            there.push(Var::from_tensor(&tensor.to_device(device)?.to_dtype(dtype)?)?);
            here.push(Var::from_tensor(&tensor)?);
        }
        let tensors = |vars: &[Var]| vars.iter().map(|var| var.as_tensor().clone()).collect::<Vec<_>>();
        let (want, graph) = record(&Device::Cpu, || op(&tensors(&here)))?;
        let (got, tape) = record(device, || op(&tensors(&there)))?;
        let what = format!("{what} in {dtype:?}");
        assert_near(&got, &want, tolerance(dtype), &what)?;
        let dy = random(want.dims(), got.dtype(), &mut rng)?;
        let grads = graph.backward(&want, &dy)?;
        let grads_there = tape.backward(&got, &dy.to_device(device)?.to_dtype(got.dtype())?)?;
        for (number, (here, there)) in here.iter().zip(&there).enumerate() {
            let (got, want) = (grads_there.get(there).expect("gradient"), grads.get(here).expect("gradient"));
            assert_eq!(got.dtype(), there.dtype());
            assert_near(got, want, tolerance(dtype), &format!("{what}: gradient {number}"))?;
        }
    }
    Ok(())
}

#[test]
fn row_operations_are_those_of_the_cpu() -> Result<()> {
    use Input::{Activation, Weight};
    let Some(device) = gpu() else { return Ok(()) };
    for (rows, d) in [(3, 8), (700, 64), (129, 768), (5, 12)] {
        check("rms norm", &device, &[Activation(&[rows, d]), Weight(&[d])], &|t| rms_norm(&t[0], &t[1], 1e-5))?;
        let twice = |t: &[Tensor]| add(&add(&t[0], &t[1])?, &t[0]);
        check("a sum", &device, &[Activation(&[rows, d]), Activation(&[rows, d])], &twice)?;
        check("swiglu", &device, &[Activation(&[rows, d]), Activation(&[rows, d])], &|t| swiglu(&t[0], &t[1]))?;
        check("linear", &device, &[Activation(&[rows, d]), Weight(&[40, d])], &|t| linear(&t[0], &t[1]))?;
    }
    // Rows that no registers hold.
    check("rms norm", &device, &[Activation(&[9, 3072]), Weight(&[3072])], &|t| rms_norm(&t[0], &t[1], 1e-5))?;
    for half in [16, 32, 64, 3] {
        let angles: Vec<f32> = (0..70 * half).map(|i| i as f32 * 0.7).collect();
        let part = |f: fn(f32) -> f32| angles.iter().map(|a| f(*a)).collect();
        let rotation = Rotation::new(part(f32::cos), part(f32::sin), half);
        // Angles go to a device once, so each device has its own.
        let here = Rotation::new(part(f32::cos), part(f32::sin), half);
        check("rope", &device, &[Activation(&[70, 3, 2 * half])], &|t| {
            rope(&t[0], if t[0].device().is_cpu() { &here } else { &rotation })
        })?;
        check("norm and rope", &device, &[Activation(&[70, 3, 2 * half]), Weight(&[2 * half])], &|t| {
            norm_rope(&t[0], &t[1], 1e-5, if t[0].device().is_cpu() { &here } else { &rotation })
        })?;
    }
    let ids: Vec<u32> = (0..300).map(|i| i * i % 37).collect();
    for dtype in [DType::F32, DType::BF16] {
        let table = random(&[40, 24], dtype, &mut ChaCha8Rng::seed_from_u64(1))?;
        let (here, there) = (Var::from_tensor(&table)?, Var::from_tensor(&table.to_device(&device)?)?);
        let (want, graph) = record(&Device::Cpu, || embedding(&here, &ids, DType::F32))?;
        let (got, tape) = record(&device, || embedding(&there, &ids, dtype))?;
        assert_near(&got, &want, tolerance(dtype), "embedding")?;
        let dy = random(want.dims(), dtype, &mut ChaCha8Rng::seed_from_u64(2))?;
        let want = graph.backward(&want, &dy)?;
        let got = tape.backward(&got, &dy.to_device(&device)?.to_dtype(dtype)?)?;
        assert_near(got.get(&there).unwrap(), want.get(&here).unwrap(), 1e-5, "gradient of the embedding")?;
    }
    Ok(())
}

#[test]
fn attention_is_that_of_the_cpu() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    for (d, heads, kv_heads) in [(32, 4, 2), (64, 3, 3), (128, 4, 1), (16, 2, 2)] {
        let mut spans = Vec::new();
        let mut rows = 0;
        for length in [70, 1, 64, 129, 200] {
            spans.push(Span { queries: rows..rows + length, keys: rows..rows + length });
            rows += length;
        }
        let spans = Spans::from(spans);
        let (q, k) = ([rows, heads, d], [rows, kv_heads, d]);
        let inputs = [Input::Activation(&q), Input::Activation(&k), Input::Activation(&k)];
        for window in [None, Some(40), Some(3)] {
            let what = format!("attention of {heads} over {kv_heads} heads of {d}, window {window:?}");
            check(&what, &device, &inputs, &|t| attention(&t[0], &t[1], &t[2], &spans, window))?;
        }
    }
    Ok(())
}

#[test]
fn the_loss_is_that_of_the_cpu() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    for (rows, vocab) in [(300, 1000), (70, 33), (1, 8)] {
        for dtype in [DType::F32, DType::BF16] {
            let mut rng = ChaCha8Rng::seed_from_u64(7);
            let hidden = random(&[rows, 16], dtype, &mut rng)?;
            let weight = random(&[vocab, 16], dtype, &mut rng)?;
            let targets: Vec<u32> =
                (0..rows as u32).map(|i| if i % 5 == 4 { IGNORE } else { i % vocab as u32 }).collect();
            let (h, w) = (Var::from_tensor(&hidden)?, Var::from_tensor(&weight)?);
            let there = hidden.to_device(&device)?.to_dtype(dtype)?;
            let (h2, w2) = (Var::from_tensor(&there)?, Var::from_tensor(&weight.to_device(&device)?)?);
            let (want, graph) = record(&Device::Cpu, || cross_entropy(&h, &w, &targets, 1e-2))?;
            let (got, tape) = record(&device, || cross_entropy(&h2, &w2, &targets, 1e-2))?;
            let close = |a: f64, b: f64| assert!((a - b).abs() <= tolerance(dtype) * b.abs(), "{a} against {b}");
            let ((nll, z), (want_nll, want_z)) = (got.read()?, want.read()?);
            close(nll, want_nll);
            close(z, want_z);
            close(got.loss.to_scalar::<f32>()?.into(), want_nll + want_z);
            let three = |device: &Device| Tensor::new(3.0_f32, device);
            let want = graph.backward(&want.loss, &three(&Device::Cpu)?)?;
            let got = tape.backward(&got.loss, &three(&device)?)?;
            assert_near(got.get(&h2).unwrap(), want.get(&h).unwrap(), tolerance(dtype), "gradient of the states")?;
            assert_near(got.get(&w2).unwrap(), want.get(&w).unwrap(), tolerance(dtype), "gradient of the head")?;
            let (got, want) = (token_log_probs(&h2, &w2, &targets)?, token_log_probs(&h, &w, &targets)?);
            let tensor = |v: Vec<f32>| Tensor::from_vec(v, rows, &Device::Cpu);
            assert_near(&tensor(got)?, &tensor(want)?, tolerance(dtype), "log-probabilities")?;
        }
    }
    Ok(())
}

#[test]
fn sums_squares_and_updates_are_those_of_the_cpu() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let update = Update {
        gradient_scale: 0.5,
        beta1: 0.9,
        beta2: 0.95,
        step_size: 1e-2,
        second_correction: 0.1,
        keep: 0.99,
        epsilon: 1e-8,
    };
    for count in [8, 1000, 70_000, 5] {
        let tensors = (0..4).map(|_| random(&[count], DType::F32, &mut rng)?.sqr()).collect::<Result<Vec<_>>>()?;
        let results = |device: &Device| -> Result<[Tensor; 4]> {
            let t = tensors.iter().map(|t| t.to_device(device)).collect::<Result<Vec<_>>>()?;
            let (weight, mut moments) = (Var::from_tensor(&t[0])?, (t[1].copy()?, t[2].copy()?));
            adamw(&weight, &mut moments, &t[3], &update)?;
            let mut sum = t[1].copy()?;
            add_to(&mut sum, &t[2])?;
            Ok([weight.as_tensor().clone(), moments.0, moments.1, sum])
        };
        for (got, want) in results(&device)?.iter().zip(&results(&Device::Cpu)?) {
            assert_near(got, want, 1e-5, "an update")?;
        }
        let there = tensors.iter().map(|t| t.to_device(&device)).collect::<Result<Vec<_>>>()?;
        for (got, tensor) in squares(&there.iter().collect::<Vec<_>>())?.into_iter().zip(&tensors) {
            let want: f64 = values(tensor)?.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            assert!((got - want).abs() <= 1e-5 * want, "{got} against {want}");
        }
    }
    Ok(())
}

#[test]
fn the_demo_says_on_a_gpu_what_it_says_on_the_cpu() {
    let Some(device) = gpu() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/checkpoint");
    let say = |checkpoint: &Checkpoint, prompts: &[&str]| -> Vec<Vec<u32>> {
        let mut running: Vec<Generation> = prompts
            .iter()
            .map(|prompt| {
                let request = GenerationRequest {
                    sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
                    ignore_eos: true,
                    ..GenerationRequest::new(checkpoint.tokenizer.encode(prompt, false).unwrap(), 48)
                };
                Generation::new(checkpoint, request).unwrap()
            })
            .collect();
        let mut said = vec![Vec::new(); running.len()];
        while running.iter().any(|generation| !generation.is_finished()) {
            // Prompts in pieces, so that new tokens have a past and company.
            let (mut work, mut of): (Vec<_>, Vec<_>) = running
                .iter_mut()
                .zip(&mut said)
                .filter(|(generation, _)| !generation.is_finished())
                .map(|(generation, said)| (Work { generation, tokens: 3 }, said))
                .unzip();
            for (said, progress) in of.iter_mut().zip(step(checkpoint, &mut work).unwrap()) {
                said.extend(progress.step.map(|step| step.token.token));
            }
        }
        said
    };
    let prompts = ["Once upon a time there was a small", "The sea", "In the year 1850, on a"];
    let here = say(&Checkpoint::open(&folder).unwrap(), &prompts);
    let there = say(&Checkpoint::open_on(&folder, &device).unwrap(), &prompts);
    assert!(here.iter().all(|said| said.len() == 48));
    assert_eq!(here, there);
}

/// Parameters on a device, the same numbers for every device.
struct Variables {
    vars: BTreeMap<String, Var>,
    rng: ChaCha8Rng,
    device: Device,
}

impl ParameterSource for Variables {
    type Error = candle_core::Error;

    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let centre = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| centre + self.rng.random_range(-0.3_f32..0.3)).collect();
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, &self.device)?)?;
        let tensor = var.as_tensor().clone();
        self.vars.insert(name.to_owned(), var);
        Ok(tensor)
    }
}

fn decoder(config: &Config, device: &Device, precision: Precision) -> Result<(BTreeMap<String, Var>, Decoder)> {
    let rng = ChaCha8Rng::seed_from_u64(3);
    let mut source = Variables { vars: BTreeMap::new(), rng, device: device.clone() };
    let mut decoder = Decoder::new(config.clone(), &mut source)?;
    decoder.set_precision(precision)?;
    Ok((source.vars, decoder))
}

#[test]
fn every_parameter_of_every_family_has_the_gradient_of_the_cpu() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    let fixture = |family: &str| {
        let path = Path::new("tests/fixtures").join(family).join("config.json");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        Config::from_json(&std::fs::read(path).unwrap()).unwrap()
    };
    let mut configs: Vec<(String, Config)> = ["llama", "llama-linear", "mistral", "qwen2", "qwen3", "olmo2"]
        .into_iter()
        .map(|family| (family.to_owned(), fixture(family)))
        .collect();
    // Shapes that every kernel takes.
    let wide = Config { hidden_size: 64, intermediate_size: 96, head_dim: 32, vocab_size: 64, ..fixture("qwen3") };
    configs.push(("qwen3, wide".to_owned(), wide));
    let (a, b) = ([5_u32, 9, 2, 7, 7, 30, 12], [1_u32, 40, 3]);
    let targets = [9, 2, 7, 7, 30, 12, IGNORE, 40, 3, 8];
    for (name, config) in configs {
        let run = |device: &Device, precision: Precision| -> Result<_> {
            let (vars, decoder) = decoder(&config, device, precision)?;
            let (loss, tape) =
                record(device, || cross_entropy(&decoder.forward(&[&a, &b])?, decoder.head()?, &targets, 1e-2))?;
            let grads = tape.backward(&loss.loss, &Tensor::new(1.0_f32, device)?)?;
            let grads = vars.iter().map(|(name, var)| (name.clone(), grads.get(var).unwrap().clone()));
            Ok((loss.read()?.0, grads.collect::<BTreeMap<_, _>>()))
        };
        let (loss, wanted) = run(&Device::Cpu, Precision::F32)?;
        // Rounding to bf16 adds up over the layers.
        for (precision, of_loss, tolerance) in [(Precision::F32, 1e-5, 1e-4), (Precision::Bf16, 2e-2, 0.1)] {
            let (found, grads) = run(&device, precision)?;
            assert!((found - loss).abs() <= of_loss * loss, "{name} in {precision}: loss {found} against {loss}");
            for (parameter, want) in &wanted {
                assert_near(&grads[parameter], want, tolerance, &format!("{name} in {precision}: {parameter}"))?;
            }
        }
    }
    Ok(())
}
