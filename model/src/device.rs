//! Where numbers are computed, by name, and in which precision.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

/// A device as settings call it: `cpu`, `cuda`, `cuda:N` or `metal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// This machine's processors.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its number from 0.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no device of this name.
    #[error("the device {0:?} is unknown: expected cpu, cuda, cuda:N or metal")]
    Unknown(String),
    /// There is no precision of this name.
    #[error("the precision {0:?} is unknown: expected f32 or bf16")]
    Precision(String),
    /// This program was built without it.
    #[error("the device {device} is not in this build: build with --features {feature}")]
    NotBuilt {
        /// The device.
        device: DeviceName,
        /// What has it.
        feature: &'static str,
    },
    /// It is not there, or its driver refuses.
    #[error("the device {device} cannot be opened: {source}")]
    Unavailable {
        /// The device.
        device: DeviceName,
        /// Why.
        source: candle_core::Error,
    },
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<DeviceName, DeviceError> {
        let number = name.strip_prefix("cuda:").and_then(|number| number.parse().ok());
        match (name, number) {
            ("cpu", _) => Ok(DeviceName::Cpu),
            ("metal", _) => Ok(DeviceName::Metal),
            ("cuda", _) => Ok(DeviceName::Cuda(0)),
            (_, Some(number)) => Ok(DeviceName::Cuda(number)),
            _ => Err(DeviceError::Unknown(name.to_owned())),
        }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = DeviceError;

    fn try_from(name: String) -> Result<DeviceName, DeviceError> {
        name.parse()
    }
}

impl Display for DeviceName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Cpu => f.write_str("cpu"),
            DeviceName::Cuda(0) => f.write_str("cuda"),
            DeviceName::Cuda(number) => write!(f, "cuda:{number}"),
            DeviceName::Metal => f.write_str("metal"),
        }
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> String {
        name.to_string()
    }
}

impl DeviceName {
    /// The device itself.
    ///
    /// # Errors
    /// A device that this build has not, or that is not there.
    pub fn open(self) -> Result<Device, DeviceError> {
        let opened = match self {
            DeviceName::Cpu => Ok(Device::Cpu),
            #[cfg(feature = "cuda")]
            DeviceName::Cuda(number) => crate::kernels::cuda::open(number),
            #[cfg(not(feature = "cuda"))]
            DeviceName::Cuda(_) => return Err(DeviceError::NotBuilt { device: self, feature: "cuda" }),
            DeviceName::Metal if cfg!(feature = "metal") => Device::new_metal(0),
            DeviceName::Metal => return Err(DeviceError::NotBuilt { device: self, feature: "metal" }),
        };
        opened.map_err(|source| DeviceError::Unavailable { device: self, source })
    }
}

/// Bytes of a GPU's memory: the most that tensors have held, and those that nobody holds. `None` where the device does
/// not say; of the CPU, the system is asked.
pub fn memory(device: &Device) -> Option<Memory> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            use crate::kernels::cuda::{free_memory, peak_memory};
            Some(Memory { peak: peak_memory(device).ok()?, free: free_memory(device).ok()? })
        }
        _ => None,
    }
}

/// See [`memory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The most bytes that tensors have held.
    pub peak: u64,
    /// Bytes that nobody holds.
    pub free: u64,
}

/// What matrix products and activations are computed in while a model is trained. Weights, sums of gradients, moments,
/// statistics of norms, softmax, the loss and rotary angles are f32 in both (Micikevicius et al. 2018, section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Everything in f32.
    #[default]
    F32,
    /// bf16, on a GPU.
    Bf16,
}

impl FromStr for Precision {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Precision, DeviceError> {
        match name {
            "f32" => Ok(Precision::F32),
            "bf16" => Ok(Precision::Bf16),
            _ => Err(DeviceError::Precision(name.to_owned())),
        }
    }
}

impl Display for Precision {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        })
    }
}

impl Precision {
    /// The type of activations.
    pub fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        }
    }

    /// The name that records have: `f32`, or `bf16 (f32 master weights)`.
    pub fn record(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16 (f32 master weights)",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["cpu", "cuda", "cuda:3", "metal"] {
            assert_eq!(name.parse::<DeviceName>().unwrap().to_string(), name);
        }
        assert_eq!("cuda:0".parse::<DeviceName>().unwrap(), DeviceName::Cuda(0));
        for name in ["", "gpu", "cuda:", "cuda:-1", "CPU"] {
            assert!(name.parse::<DeviceName>().is_err(), "{name}");
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_device_that_is_not_built_in_says_how_to_have_it() {
        let message = DeviceName::Cuda(1).open().expect_err("not built").to_string();
        assert!(message.contains("cuda:1") && message.contains("--features cuda"), "{message}");
    }
}
