//! What a training run will take: memory of each device, what is exchanged, speed, time, energy, before anything is allocated.

mod cost;
mod machines;
mod shape;

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

pub use cost::Calibration;
pub use machines::{MACHINES, Machine, machine};
pub use shape::Shape;

/// How a model and its batches lie on devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// Devices.
    pub gpus: usize,
    /// Devices that share each layer.
    pub tensor: usize,
    /// Stages that the layers are divided into.
    pub pipeline: usize,
    /// Sequences of a forward and backward pass.
    pub micro_batch: usize,
    /// Sequences of an update.
    pub global_batch: usize,
    /// Tokens of a sequence.
    pub sequence: usize,
}

impl Layout {
    /// Devices that hold one copy of the model.
    pub fn model_parallel(&self) -> usize {
        self.tensor * self.pipeline
    }

    /// Copies of the model.
    pub fn replicas(&self) -> usize {
        self.gpus / self.model_parallel()
    }

    /// Micro-batches of an update, for each copy.
    pub fn micro_batches(&self) -> f64 {
        (self.global_batch / (self.replicas() * self.micro_batch)) as f64
    }

    fn check(&self, machine: &Machine, layers: usize) -> Result<(), PlanError> {
        let refuse = |option, got: usize, expected: String| Err(PlanError { option, got, expected });
        for (option, value) in [
            ("--gpus", self.gpus),
            ("--tensor", self.tensor),
            ("--pipeline", self.pipeline),
            ("--micro-batch", self.micro_batch),
            ("--global-batch", self.global_batch),
            ("--sequence", self.sequence),
        ] {
            if !(1..=1 << 24).contains(&value) {
                return refuse(option, value, "a number from 1 to 16777216".into());
            }
        }
        if self.tensor > machine.node || !machine.node.is_multiple_of(self.tensor) {
            return refuse("--tensor", self.tensor, format!("a divisor of the {} devices of a node", machine.node));
        }
        if self.pipeline > layers {
            return refuse("--pipeline", self.pipeline, format!("at most the {layers} layers"));
        }
        if !self.gpus.is_multiple_of(self.model_parallel()) {
            let each = self.model_parallel();
            return refuse("--gpus", self.gpus, format!("a multiple of the {each} devices that hold one model"));
        }
        let pass = self.replicas() * self.micro_batch;
        if !self.global_batch.is_multiple_of(pass) {
            let expected = format!("a multiple of {pass}: a micro-batch on each of the {} copies", self.replicas());
            return refuse("--global-batch", self.global_batch, expected);
        }
        Ok(())
    }
}

/// A layout that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option} is {got}: expected {expected}")]
pub struct PlanError {
    option: &'static str,
    got: usize,
    expected: String,
}

/// How energy becomes carbon dioxide.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Footprint {
    /// Power usage effectiveness: the building's energy over the devices'.
    pub pue: f64,
    /// Grams of CO2 equivalents for each kWh.
    pub grams_per_kwh: f64,
}

/// Bytes of a device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// Parameters in bf16.
    pub parameters: f64,
    /// Gradients in bf16.
    pub gradients: f64,
    /// Master weights and both moments in f32, shared out among the copies.
    pub optimizer: f64,
    /// What backward needs, layers recomputed.
    pub activations: f64,
    /// What the device has.
    pub available: f64,
}

impl Memory {
    fn new(shape: &Shape, layout: &Layout, machine: &Machine) -> Memory {
        let own = shape.parameters() / layout.model_parallel() as f64;
        let tokens = (layout.micro_batch * layout.sequence) as f64;
        let layers = shape.layers / layout.pipeline as f64;
        // The first stage holds the inputs of as many micro-batches as there are stages.
        let inputs = 2.0 * tokens * shape.hidden * layers * (layout.pipeline as f64).min(layout.micro_batches());
        let layer = shape.layer_activations(tokens) / layout.tensor as f64;
        Memory {
            parameters: 2.0 * own,
            gradients: 2.0 * own,
            optimizer: 12.0 * own / layout.replicas() as f64,
            activations: inputs + layer,
            available: machine.memory,
        }
    }

    /// All of it.
    pub fn total(&self) -> f64 {
        self.parameters + self.gradients + self.optimizer + self.activations
    }

    /// Whether it fits, with a tenth left for libraries and fragmentation.
    pub fn fits(&self) -> bool {
        self.total() <= 0.9 * self.available
    }
}

/// What a run will take.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The machine's name.
    pub machine: &'static str,
    /// The layout.
    pub layout: Layout,
    /// Parameters of the model.
    pub parameters: f64,
    /// Bytes of each device.
    pub memory: Memory,
    /// Bytes that a device sends for each update, between nodes.
    pub exchanged: f64,
    /// Bytes that a device sends for each update, within its node.
    pub exchanged_in_node: f64,
    /// Seconds of an update.
    pub update_seconds: f64,
    /// Tokens per second of one device.
    pub tokens_per_second: f64,
    /// Model FLOPs over peak FLOPs.
    pub mfu: f64,
    /// Tokens of the run.
    pub tokens: f64,
    /// Hours of all devices together.
    pub gpu_hours: f64,
    /// Energy of the devices, the building included.
    pub kwh: f64,
    /// Kilograms of CO2 equivalents.
    pub kg_co2: f64,
    /// What the figures rest on.
    pub assumptions: Vec<String>,
}

impl Plan {
    /// The plan of a run of `tokens` tokens.
    ///
    /// # Errors
    /// Names the option that does not go with the others.
    pub fn new(
        shape: &Shape,
        layout: Layout,
        machine: &Machine,
        tokens: f64,
        footprint: Footprint,
    ) -> Result<Plan, PlanError> {
        layout.check(machine, shape.layers as usize)?;
        let calibration = Calibration::of(machine);
        let update_seconds = cost::update_seconds(shape, &layout, machine, &calibration);
        let batch = (layout.global_batch * layout.sequence) as f64;
        let tokens_per_second = batch / update_seconds / layout.gpus as f64;
        let gpu_hours = tokens / tokens_per_second / 3600.0;
        let kwh = gpu_hours * machine.power / 1000.0 * footprint.pue;
        Ok(Plan {
            machine: machine.name,
            layout,
            parameters: shape.parameters(),
            memory: Memory::new(shape, &layout, machine),
            exchanged: cost::exchanged(shape, &layout),
            exchanged_in_node: cost::exchanged_in_node(shape, &layout) * layout.micro_batches(),
            update_seconds,
            tokens_per_second,
            mfu: shape.flops_per_token() * tokens_per_second / machine.peak,
            tokens,
            gpu_hours,
            kwh,
            kg_co2: kwh * footprint.grams_per_kwh / 1000.0,
            assumptions: assumptions(machine, &calibration, footprint),
        })
    }
}

fn assumptions(machine: &Machine, calibration: &Calibration, footprint: Footprint) -> Vec<String> {
    let points: Vec<String> = machine.points.iter().filter(|p| p.calibrates).map(|p| p.gpus.to_string()).collect();
    let bandwidth = match calibration.borrowed {
        false => String::new(),
        true => format!(", the latter as on {}, for want of more points", MACHINES[0].name),
    };
    vec![
        format!("{}; calibrated on its runs of {} devices", machine.source, points.join(" and ")),
        format!(
            "a micro-batch reaches {:.1} % of the peak of {:.0} TFLOP/s; gradients and parameters are exchanged at {:.1} GB/s and \
             device{bandwidth}, once for each update, nothing hidden behind arithmetic",
            100.0 * calibration.efficiency,
            machine.peak / 1e12,
            calibration.bandwidth / 1e9
        ),
        "bf16 parameters and gradients, f32 master weights and moments shared out among the copies (ZeRO-1); layers are \
         recomputed in backward; FLOPs of recomputation do not count in MFU"
            .to_owned(),
        format!(
            "{:.0} W for each device all the time, PUE {}, {} g CO2 for each kWh; no machine stands still",
            machine.power, footprint.pue, footprint.grams_per_kwh
        ),
    ]
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Plan { layout, memory, .. } = self;
        let gb = |bytes: f64| format!("{:.1} GB", bytes / 1e9);
        writeln!(f, "{:.2} B parameters on {} × {}", self.parameters / 1e9, layout.gpus, self.machine)?;
        writeln!(
            f,
            "layout          {} copies × {} tensor × {} pipeline; {} sequences of {} tokens an update, {} at a time, {:.0} times",
            layout.replicas(),
            layout.tensor,
            layout.pipeline,
            layout.global_batch,
            layout.sequence,
            layout.micro_batch,
            layout.micro_batches()
        )?;
        writeln!(
            f,
            "memory/device   {}: parameters {}, gradients {}, optimizer {}, activations {}; {} of {}",
            gb(memory.total()),
            gb(memory.parameters),
            gb(memory.gradients),
            gb(memory.optimizer),
            gb(memory.activations),
            if memory.fits() { "fits into nine tenths" } else { "DOES NOT FIT into nine tenths" },
            gb(memory.available)
        )?;
        writeln!(
            f,
            "exchanged       {} between nodes, {} within, for each device and update",
            gb(self.exchanged),
            gb(self.exchanged_in_node)
        )?;
        writeln!(
            f,
            "speed           {:.2} s an update, {:.0} tokens/s/GPU, {:.0} in all, MFU {:.1} %",
            self.update_seconds,
            self.tokens_per_second,
            self.tokens_per_second * layout.gpus as f64,
            100.0 * self.mfu
        )?;
        writeln!(
            f,
            "{:<16}{:.0} GPU-hours, {:.1} days; {:.0} MWh, {:.1} t CO2",
            format!("{:.3}T tokens", self.tokens / 1e12),
            self.gpu_hours,
            self.gpu_hours / layout.gpus as f64 / 24.0,
            self.kwh / 1000.0,
            self.kg_co2 / 1000.0
        )?;
        writeln!(f, "assumed")?;
        self.assumptions.iter().try_for_each(|line| writeln!(f, "  - {line}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::presets::preset;

    const FOOTPRINT: Footprint = Footprint { pue: 1.0, grams_per_kwh: 57.0 };

    fn layout(gpus: usize) -> Layout {
        Layout { gpus, tensor: 1, pipeline: 1, micro_batch: 8, global_batch: 8 * gpus, sequence: 2048 }
    }

    fn plan(name: &str, layout: Layout) -> Result<Plan, PlanError> {
        let preset = preset(name).unwrap();
        let shape = Shape::new(&preset.model, preset.vocab_size, layout.sequence);
        Plan::new(&shape, layout, machine("a100-64").unwrap(), 2e12, FOOTPRINT)
    }

    #[test]
    fn gpu_hours_of_two_trillion_tokens_are_of_the_order_that_was_expected() {
        // Expected for 2T tokens: 0.4M hours for 7B, 0.8M for 13B, 2.0M for 34B.
        for (name, tensor, pipeline, expected) in [("7b", 1, 1, 0.4e6), ("13b", 2, 1, 0.8e6), ("34b", 4, 2, 2.0e6)] {
            let micro_batch = 4;
            let plan = plan(name, Layout { tensor, pipeline, micro_batch, global_batch: 2048, ..layout(256) }).unwrap();
            assert!((0.5..1.5).contains(&(plan.gpu_hours / expected)), "{name}: {} hours", plan.gpu_hours);
            assert!(plan.memory.fits(), "{name}: {:?}", plan.memory);
        }
    }

    #[test]
    fn energy_is_that_of_the_published_account_of_bloom() {
        // 1,082,990 GPU-hours at 400 W: 433 MWh, 25 t at 57 g/kWh (Luccioni et al. 2023, table 3).
        let machine = machine("a100-80").unwrap();
        let kwh = 1_082_990.0 * machine.power / 1000.0;
        assert!((kwh / 433_196.0 - 1.0).abs() < 1e-3);
        let plan = plan("7b", layout(8)).unwrap();
        assert!((plan.kg_co2 / (plan.kwh * 0.057) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_layout_that_cannot_be_names_the_option() {
        for (wrong, option) in [
            (Layout { gpus: 0, ..layout(8) }, "--gpus"),
            (Layout { tensor: 3, ..layout(8) }, "--tensor"),
            (Layout { tensor: 8, ..layout(8) }, "--tensor"),
            (Layout { pipeline: 64, ..layout(64) }, "--pipeline"),
            (Layout { pipeline: 3, ..layout(8) }, "--gpus"),
            (Layout { global_batch: 100, ..layout(8) }, "--global-batch"),
        ] {
            let error = plan("7b", wrong).unwrap_err().to_string();
            assert!(error.starts_with(option) && error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn more_devices_for_a_model_take_less_memory_and_more_exchange() {
        let alone = plan("13b", layout(16)).unwrap();
        let shared = plan("13b", Layout { tensor: 4, global_batch: 128, ..layout(16) }).unwrap();
        assert!(shared.memory.total() < alone.memory.total() / 2.0);
        assert!(alone.exchanged_in_node == 0.0 && shared.exchanged_in_node > 0.0);
        assert!(shared.to_string().contains("4 tensor"));
    }
}
