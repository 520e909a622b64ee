//! Energy and CO2 of a run, by a stated method, since machines seldom let a program measure them.

use serde::Serialize;

use super::log::Line;

/// What is assumed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Method {
    /// Watts of a hardware thread that is busy: 3.5, the mean of a cloud's servers at full load.
    pub watts_per_busy_thread: f64,
    /// Watts for each GB of memory: 0.392.
    pub watts_per_gigabyte: f64,
    /// The building's energy over the machine's: 1.2.
    pub pue: f64,
    /// Grams of CO2 equivalents for each kWh: 242, the European Union's mean in 2023.
    pub grams_per_kwh: f64,
}

impl Default for Method {
    fn default() -> Self {
        Method { watts_per_busy_thread: 3.5, watts_per_gigabyte: 0.392, pue: 1.2, grams_per_kwh: 242.0 }
    }
}

/// The method in words, with its sources.
pub const METHOD: &str = "CPU seconds of the process × 3.5 W (Cloud Carbon Footprint's maximum for a hardware thread) plus \
     seconds × GB of memory held × 0.392 W (the same source), times a power usage effectiveness of 1.2, at 242 g of CO2 \
     equivalents for each kWh (European Environment Agency, EU mean of 2023). Updates that were run and thrown away count; \
     the making of the machine does not.";

/// An estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Footprint {
    /// Energy in kWh.
    pub kwh: f64,
    /// Grams of CO2 equivalents.
    pub grams: f64,
}

/// Of the updates in these lines.
pub fn footprint<'a>(lines: impl Iterator<Item = &'a Line>, method: &Method) -> Footprint {
    let joules: f64 = lines
        .map(|line| {
            let gigabytes = line.memory_bytes as f64 / 1e9;
            line.cpu_seconds * method.watts_per_busy_thread + line.step_seconds * gigabytes * method.watts_per_gigabyte
        })
        .sum();
    let kwh = joules / 3.6e6 * method.pue;
    Footprint { kwh, grams: kwh * method.grams_per_kwh }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_the_stated_sum() {
        let line = Line { cpu_seconds: 7200.0, step_seconds: 3600.0, memory_bytes: 10_000_000_000, ..Line::default() };
        let method = Method::default();
        let footprint = footprint([line.clone(), line].iter(), &method);
        // Two hours of two busy threads and 10 GB.
        let watt_hours = 2.0 * (2.0 * 3.5 + 10.0 * 0.392) * 1.2;
        assert!((footprint.kwh - watt_hours / 1000.0).abs() < 1e-12, "{footprint:?}");
        assert!((footprint.grams - watt_hours / 1000.0 * 242.0).abs() < 1e-9);
    }
}
