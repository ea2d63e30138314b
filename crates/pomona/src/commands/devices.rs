//! `pomona devices`.

use anyhow::Result;
use pomona_cost::{
    MeasureOptions, Probes, THIS_MACHINE, builtin_devices, load_device, measure_device, save_device,
};
use pomona_exec::{Device, Tensor};
use pomona_report::device_table;

use crate::args::Devices;
use crate::context::measured_device_path;
use crate::ui::Ui;

/// Side of the measured matrix product.
const SIDE: usize = 1024;

pub fn run(a: &Devices, ui: &Ui) -> Result<()> {
    let path = measured_device_path();
    if a.measure {
        ui.say("measuring f32 products, memory bandwidth and the smallest operator");
        let cpu = Device::cpu();
        let x = Tensor::full(0.5, &[SIDE, SIDE], &cpu)?;
        let y = Tensor::full(0.25, &[SIDE, SIDE], &cpu)?;
        let small = Tensor::full(0.5, &[1, 16], &cpu)?;
        let mut failed = None;
        let mut product = || match x.matmul(&y) {
            Ok(t) => drop(std::hint::black_box(t)),
            Err(e) => failed = Some(e),
        };
        let mut least = || drop(std::hint::black_box(small.scale(2.0)));
        let probes =
            Probes { product: &mut product, product_flops: 2.0 * (SIDE as f64).powi(3), small: &mut least };
        let device = measure_device(THIS_MACHINE, "this machine", &MeasureOptions::default(), probes)?;
        if let Some(e) = failed {
            return Err(e.into());
        }
        save_device(&path, &device)?;
    }
    let mut all = builtin_devices()?;
    if path.is_file() {
        all.insert(0, load_device(&path)?);
    }
    ui.result(&all, || device_table(&all, ui.style()))
}
