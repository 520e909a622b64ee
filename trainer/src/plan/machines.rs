//! Machines that training was measured on.

/// A run that somebody measured: data parallel, one replica of the model on each device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Devices.
    pub gpus: usize,
    /// Sequences of an update.
    pub global_batch: usize,
    /// Tokens per second, all devices together.
    pub tokens_per_second: f64,
    /// Whether the machine's two numbers are found from it; the other points check them.
    pub calibrates: bool,
}

/// A kind of accelerator in a kind of cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// As the command line calls it.
    pub name: &'static str,
    /// What it is and who measured it.
    pub source: &'static str,
    /// Peak of dense bf16 products, in FLOP/s.
    pub peak: f64,
    /// Memory of a device, in bytes.
    pub memory: f64,
    /// Devices of a node, between which tensor parallelism stays.
    pub node: usize,
    /// Bandwidth between the devices of a node, each way, in bytes per second.
    pub node_bandwidth: f64,
    /// Power of a device, in watts.
    pub power: f64,
    /// Measured with a model of 7B parameters, sequences of 2048 tokens, micro-batches of 8.
    pub points: &'static [Point],
}

const fn calibrating(gpus: usize, global_batch: usize, tokens_per_second: f64) -> Point {
    Point { gpus, global_batch, tokens_per_second, calibrates: true }
}

const fn checking(gpus: usize, global_batch: usize, tokens_per_second: f64) -> Point {
    Point { gpus, global_batch, tokens_per_second, calibrates: false }
}

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// All that are known.
pub const MACHINES: [Machine; 4] = [
    Machine {
        name: "a100-64",
        source: "Leonardo, custom A100 with 64 GB, 4 in a node; SafeLMM's weak scaling of 7B",
        peak: 312e12,
        memory: 64.0 * GIB,
        node: 4,
        node_bandwidth: 200e9,
        power: 440.0,
        points: &[
            checking(8, 512, 23_039.0),
            calibrating(16, 512, 42_691.0),
            checking(32, 512, 73_988.0),
            calibrating(64, 512, 117_865.0),
        ],
    },
    Machine {
        name: "a100-40",
        source: "JUWELS Booster, A100 with 40 GB, 4 in a node; SafeLMM's weak scaling of 7B",
        peak: 312e12,
        memory: 40.0 * GIB,
        node: 4,
        node_bandwidth: 200e9,
        power: 400.0,
        points: &[
            checking(8, 512, 18_746.0),
            calibrating(16, 512, 30_558.0),
            checking(32, 512, 51_982.0),
            calibrating(64, 512, 83_097.0),
            checking(128, 1024, 165_031.0),
            checking(256, 2048, 323_002.0),
        ],
    },
    Machine {
        name: "a100-80",
        source: "A100 with 80 GB, 8 in a node; MosaicML's 7B on 8 of them, 4,641 tokens/s each",
        peak: 312e12,
        memory: 80.0 * GIB,
        node: 8,
        node_bandwidth: 300e9,
        power: 400.0,
        points: &[calibrating(8, 512, 8.0 * 4641.0)],
    },
    Machine {
        name: "h100-80",
        source: "H100 with 80 GB, 8 in a node; MosaicML's 7B on 8 of them, 10,643 tokens/s each",
        peak: 989e12,
        memory: 80.0 * GIB,
        node: 8,
        node_bandwidth: 450e9,
        power: 700.0,
        points: &[calibrating(8, 512, 8.0 * 10_643.0)],
    },
];

/// The machine of this name.
///
/// # Errors
/// The names that there are.
pub fn machine(name: &str) -> Result<&'static Machine, String> {
    static ALL: [Machine; 4] = MACHINES;
    let names: Vec<&str> = ALL.iter().map(|machine| machine.name).collect();
    let unknown = format!("there is no machine '{name}', expected one of {}", names.join(", "));
    ALL.iter().find(|machine| machine.name == name).ok_or(unknown)
}
