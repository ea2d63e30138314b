//! Where tensors live, chosen at run time by name.

use std::fmt;

use crate::burn_types::DispatchDevice;
use crate::error::{ExecError, Result};

/// A device on which graphs run.
#[derive(Clone)]
pub struct Device {
    name: &'static str,
    pub(crate) burn: burn::tensor::Device,
}

impl Device {
    /// The processor. Always there.
    pub fn cpu() -> Device {
        Device { name: "cpu", burn: burn::tensor::Device::flex() }
    }

    /// A device by name; the error lists the names that this build has.
    pub fn by_name(name: &str) -> Result<Device> {
        devices().into_iter().find(|d| d.name == name).ok_or_else(|| {
            let names: Vec<&str> = devices().iter().map(|d| d.name).collect();
            ExecError::Device(format!("no device `{name}` in this build; it has: {}", names.join(", ")))
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it is the processor, where kernels share their work among threads.
    pub(crate) fn is_cpu(&self) -> bool {
        self.name == "cpu"
    }

    pub(crate) fn dispatch(&self) -> &DispatchDevice {
        self.burn.as_dispatch()
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The devices that this build has.
pub fn devices() -> Vec<Device> {
    #[allow(unused_mut, reason = "only builds with a GPU feature add to it")]
    let mut out = vec![Device::cpu()];
    #[cfg(feature = "vulkan")]
    out.push(Device {
        name: "vulkan",
        burn: burn::tensor::Device::vulkan(burn::tensor::DeviceKind::Default),
    });
    #[cfg(feature = "metal")]
    out.push(Device { name: "metal", burn: burn::tensor::Device::metal(burn::tensor::DeviceKind::Default) });
    #[cfg(feature = "wgpu")]
    out.push(Device { name: "wgpu", burn: burn::tensor::Device::wgpu(burn::tensor::DeviceKind::Default) });
    #[cfg(feature = "cuda")]
    out.push(Device { name: "cuda", burn: burn::tensor::Device::cuda(0) });
    out
}
