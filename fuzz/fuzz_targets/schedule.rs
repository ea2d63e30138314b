//! scheduler_config.json of a diffusion pipeline.
#![no_main]

use pomona_task::NoiseSchedule;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(config) = serde_json::from_slice(data) else { return };
    if let Ok(schedule) = NoiseSchedule::from_config(&config) {
        for step in [0, schedule.steps() - 1] {
            assert!((0.0..=1.0).contains(&schedule.share(step)), "{schedule:?}");
        }
    }
});
