//! How long an update takes.
//!
//! `T = a·t/(1 − bubble) + s`: `a` micro-batches one after another, each of time `t`, and `s` for what is exchanged once for
//! each update, none of it hidden behind arithmetic. `t` is the micro-batch's FLOPs over a share of the device's peak, and what
//! tensor parallelism exchanges; `s` is the bytes of gradients and parameters over a bandwidth. The share and the bandwidth are
//! the two numbers of a machine: they are those under which its calibrating points come out.

use super::Layout;
use super::machines::{MACHINES, Machine, Point};
use super::shape::Shape;
use crate::presets::presets;

/// The two numbers of a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// The share of the peak that a micro-batch reaches.
    pub efficiency: f64,
    /// Bytes per second and device that gradients and parameters are exchanged with.
    pub bandwidth: f64,
    /// Whether the bandwidth is another machine's, for want of points.
    pub borrowed: bool,
}

/// Sequences of a micro-batch, and tokens of a sequence, in all measured points.
const MEASURED: (usize, usize) = (8, 2048);

impl Calibration {
    /// Least squares over the machine's calibrating points; with a single one the bandwidth is that of the first machine.
    pub fn of(machine: &Machine) -> Calibration {
        let shape = measured();
        let points: Vec<(f64, f64, f64)> = machine.points.iter().filter(|p| p.calibrates).map(equation).collect();
        let flops = shape.flops_per_token() * (MEASURED.0 * MEASURED.1) as f64;
        if points.len() < 2 {
            let Calibration { bandwidth, .. } = Calibration::of(&MACHINES[0]);
            let (a, bytes, seconds) = points[0];
            let micro_batch = (seconds - bytes / bandwidth) / a;
            return Calibration { efficiency: flops / machine.peak / micro_batch, bandwidth, borrowed: true };
        }
        // seconds = a·x + bytes·y, by the normal equations.
        let sum = |of: &dyn Fn(&(f64, f64, f64)) -> f64| points.iter().map(of).sum::<f64>();
        let (aa, ab, bb) = (sum(&|p| p.0 * p.0), sum(&|p| p.0 * p.1), sum(&|p| p.1 * p.1));
        let (at, bt) = (sum(&|p| p.0 * p.2), sum(&|p| p.1 * p.2));
        let determinant = aa * bb - ab * ab;
        let (x, y) = ((at * bb - bt * ab) / determinant, (bt * aa - at * ab) / determinant);
        Calibration { efficiency: flops / machine.peak / x, bandwidth: 1.0 / y, borrowed: false }
    }
}

/// The model of the measured points.
fn measured() -> Shape {
    let presets = presets();
    let preset = presets.iter().find(|preset| preset.name == "7b").unwrap_or(&presets[0]);
    Shape::new(&preset.model, preset.vocab_size, MEASURED.1)
}

/// Micro-batches of an update, bytes that a device exchanges, seconds.
fn equation(point: &Point) -> (f64, f64, f64) {
    let layout = measured_layout(point);
    let tokens = (point.global_batch * MEASURED.1) as f64;
    (layout.micro_batches(), exchanged(&measured(), &layout), tokens / point.tokens_per_second)
}

/// How a measured point was laid out.
pub fn measured_layout(point: &Point) -> Layout {
    let (micro_batch, sequence) = MEASURED;
    Layout { gpus: point.gpus, tensor: 1, pipeline: 1, micro_batch, global_batch: point.global_batch, sequence }
}

/// Bytes that a device sends for each update: gradients are reduced and scattered in bf16, parameters gathered in bf16 (ZeRO-1:
/// Rajbhandari et al. 2020, section 7).
pub fn exchanged(shape: &Shape, layout: &Layout) -> f64 {
    let replicas = layout.replicas() as f64;
    2.0 * 2.0 * shape.parameters() / layout.model_parallel() as f64 * (replicas - 1.0) / replicas
}

/// Bytes that a device sends within its node for each micro-batch: four all-reduces of a layer's activations (Shoeybi et al.
/// 2020, section 3), each sending them twice but for the own part.
pub fn exchanged_in_node(shape: &Shape, layout: &Layout) -> f64 {
    let tensor = layout.tensor as f64;
    let tokens = (layout.micro_batch * layout.sequence) as f64;
    let layers = shape.layers / layout.pipeline as f64;
    4.0 * layers * 2.0 * (tensor - 1.0) / tensor * 2.0 * tokens * shape.hidden
}

/// Seconds of an update.
pub fn update_seconds(shape: &Shape, layout: &Layout, machine: &Machine, calibration: &Calibration) -> f64 {
    let tokens = (layout.micro_batch * layout.sequence) as f64;
    let flops = shape.flops_per_token() * tokens / layout.model_parallel() as f64;
    let micro_batch =
        flops / (machine.peak * calibration.efficiency) + exchanged_in_node(shape, layout) / machine.node_bandwidth;
    // 1F1B: as many micro-batches longer as there are stages but one (Narayanan et al. 2021, section 2.2).
    let micro_batches = layout.micro_batches() + (layout.pipeline - 1) as f64;
    micro_batches * micro_batch + exchanged(shape, layout) / calibration.bandwidth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_scaling_is_reproduced_within_15_percent_where_it_did_not_calibrate() {
        let mut checked = 0;
        for machine in &MACHINES {
            let calibration = Calibration::of(machine);
            assert!((0.1..0.8).contains(&calibration.efficiency), "{}: {calibration:?}", machine.name);
            for point in machine.points.iter().filter(|point| !point.calibrates) {
                let layout = measured_layout(point);
                let seconds = update_seconds(&measured(), &layout, machine, &calibration);
                let found = (point.global_batch * MEASURED.1) as f64 / seconds;
                let off = found / point.tokens_per_second - 1.0;
                assert!(off.abs() < 0.15, "{}, {} devices: off by {:.1} %", machine.name, point.gpus, off * 100.0);
                checked += 1;
            }
        }
        assert_eq!(checked, 6);
    }

    #[test]
    fn calibrating_points_come_out() {
        for machine in &MACHINES {
            for point in machine.points.iter().filter(|point| point.calibrates) {
                let seconds = update_seconds(&measured(), &measured_layout(point), machine, &Calibration::of(machine));
                let found = (point.global_batch * MEASURED.1) as f64 / seconds;
                assert!((found / point.tokens_per_second - 1.0).abs() < 1e-3, "{}: {found}", machine.name);
            }
        }
    }
}
