//! How diffusion models are trained to see noise: the share of noise at each step, and what the network is to tell.

use serde_json::Value;

/// Most steps that a schedule may have.
const MAX_STEPS: u64 = 100_000;

/// Schedulers whose configs describe the noise by betas, without the ending of their names.
const DISCRETE: [&str; 19] = [
    "DDIM",
    "DDIMInverse",
    "DDIMParallel",
    "DDPM",
    "DDPMParallel",
    "DEISMultistep",
    "DPMSolverMultistep",
    "DPMSolverMultistepInverse",
    "DPMSolverSDE",
    "DPMSolverSinglestep",
    "EulerAncestralDiscrete",
    "EulerDiscrete",
    "HeunDiscrete",
    "KDPM2AncestralDiscrete",
    "KDPM2Discrete",
    "LCM",
    "LMSDiscrete",
    "PNDM",
    "UniPCMultistep",
];

/// What the network's output stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// `sqrt(a) noise - sqrt(1 - a) picture` (Salimans and Ho, 2022).
    Velocity,
    /// The picture.
    Sample,
}

/// A discrete noise schedule, as a scheduler_config.json of diffusers describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    /// Share of the picture's variance that is left at each step.
    shares: Vec<f64>,
    /// What the network tells.
    pub prediction: Prediction,
}

impl NoiseSchedule {
    /// Reads `num_train_timesteps`, `beta_start`, `beta_end`, `beta_schedule` (`linear`, `scaled_linear`, `squaredcos_cap_v2`),
    /// `trained_betas`, `prediction_type` and `rescale_betas_zero_snr`, with diffusers' values where they are not there.
    ///
    /// # Errors
    /// A sentence about the first key that is not understood. Schedulers that are not known to have betas (those of flows and of
    /// continuous noise) are refused by name.
    pub fn from_config(config: &Value) -> Result<NoiseSchedule, String> {
        let class = config.get("_class_name").and_then(Value::as_str).unwrap_or("");
        let name = class.strip_suffix("Scheduler").unwrap_or(class);
        let flow = config.get("use_flow_sigmas").and_then(Value::as_bool).unwrap_or(false);
        if flow || !(class.is_empty() || DISCRETE.contains(&name)) {
            return Err(format!(
                "`{class}` is not known as a scheduler of a discrete schedule of betas: training by it is not there; known are {}",
                DISCRETE.join(", ")
            ));
        }
        let number = |key: &str, usual: f64| match config.get(key).filter(|v| !v.is_null()) {
            None => Ok(usual),
            Some(v) => {
                let found = v.as_f64().filter(|n| *n > 0.0 && *n < 1.0);
                found.ok_or_else(|| format!("`{key}` is {v}; a number between 0 and 1 was expected"))
            }
        };
        let steps = match config.get("num_train_timesteps").filter(|v| !v.is_null()) {
            None => 1000,
            Some(v) => v
                .as_u64()
                .filter(|n| (2..=MAX_STEPS).contains(n))
                .ok_or_else(|| format!("`num_train_timesteps` is {v}; 2 to {MAX_STEPS} was expected"))?,
        } as usize;
        let (start, end) = (number("beta_start", 1e-4)?, number("beta_end", 0.02)?);
        let along = |from: f64, to: f64| move |i: usize| from + (to - from) * i as f64 / (steps - 1) as f64;
        let schedule = config.get("beta_schedule").and_then(Value::as_str).unwrap_or("linear");
        let mut betas: Vec<f64> = match (config.get("trained_betas").filter(|v| !v.is_null()), schedule) {
            (Some(list), _) => {
                let read =
                    list.as_array().and_then(|l| l.iter().map(Value::as_f64).collect::<Option<Vec<_>>>());
                read.filter(|l| l.len() >= 2 && l.len() as u64 <= MAX_STEPS)
                    .ok_or("`trained_betas` is no list of numbers")?
            }
            (None, "linear") => (0..steps).map(along(start, end)).collect(),
            (None, "scaled_linear") => {
                (0..steps).map(along(start.sqrt(), end.sqrt())).map(|b| b * b).collect()
            }
            (None, "squaredcos_cap_v2") => (0..steps).map(|i| cosine(i, steps)).collect(),
            (None, other) => {
                return Err(format!(
                    "`beta_schedule` is \"{other}\"; linear, scaled_linear or squaredcos_cap_v2 was expected"
                ));
            }
        };
        if let Some(bad) = betas.iter().find(|b| !(0.0..=1.0).contains(*b)) {
            return Err(format!("a beta is {bad}; numbers from 0 to 1 were expected"));
        }
        if config.get("rescale_betas_zero_snr").and_then(Value::as_bool).unwrap_or(false) {
            betas = without_signal_at_the_end(&betas);
            if betas.iter().any(|b| !b.is_finite()) {
                return Err(
                    "the betas cannot be rescaled to end without signal: they leave none on the way, or all"
                        .to_owned(),
                );
            }
        }
        let prediction = match config.get("prediction_type").and_then(Value::as_str).unwrap_or("epsilon") {
            "epsilon" => Prediction::Epsilon,
            "v_prediction" => Prediction::Velocity,
            "sample" => Prediction::Sample,
            other => {
                return Err(format!(
                    "`prediction_type` is \"{other}\"; epsilon, v_prediction or sample was expected"
                ));
            }
        };
        Ok(NoiseSchedule { shares: shares(&betas), prediction })
    }

    /// Steps.
    pub fn steps(&self) -> usize {
        self.shares.len()
    }

    /// Share of the picture's variance that is left at a step.
    pub fn share(&self, step: usize) -> f64 {
        self.shares.get(step).copied().unwrap_or(0.0)
    }

    /// A picture with its noise at a step, and what the network is to tell of it.
    pub fn noised(&self, picture: &[f32], noise: &[f32], step: usize) -> (Vec<f32>, Vec<f32>) {
        let share = self.share(step);
        let (keep, add) = (share.sqrt() as f32, (1.0 - share).sqrt() as f32);
        let pairs = || picture.iter().zip(noise);
        let seen = pairs().map(|(x, n)| keep * x + add * n).collect();
        let told = match self.prediction {
            Prediction::Epsilon => noise.to_vec(),
            Prediction::Velocity => pairs().map(|(x, n)| keep * n - add * x).collect(),
            Prediction::Sample => picture.to_vec(),
        };
        (seen, told)
    }
}

/// Products of what each step leaves.
fn shares(betas: &[f64]) -> Vec<f64> {
    let mut left = 1.0;
    betas
        .iter()
        .map(|b| {
            left *= 1.0 - b;
            left
        })
        .collect()
}

/// Nichol and Dhariwal, 2021.
fn cosine(i: usize, steps: usize) -> f64 {
    let left = |i: usize| {
        let t = i as f64 / steps as f64;
        ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2)
    };
    (1.0 - left(i + 1) / left(i)).min(0.999)
}

/// Lin et al., 2023, algorithm 1: the last step is all noise, the first stays.
fn without_signal_at_the_end(betas: &[f64]) -> Vec<f64> {
    let roots: Vec<f64> = shares(betas).iter().map(|s| s.sqrt()).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let squares: Vec<f64> = roots.iter().map(|r| ((r - last) * first / (first - last)).powi(2)).collect();
    let mut before = 1.0;
    squares
        .into_iter()
        .map(|s| {
            let beta = 1.0 - s / before;
            before = s;
            beta
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    /// `DDPMScheduler(**config)` of diffusers 0.42: `alphas_cumprod` at 0, 499 and 999, `add_noise` and the target for picture
    /// [1, -2], noise [0.5, 3] at 499.
    #[test]
    fn schedules_are_those_of_diffusers() {
        let cases = [
            (json!({}), [0.999899983, 0.078587234, 4.03583035e-05], [0.760285378, 2.31903911], [0.5, 3.0]),
            (
                json!({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}),
                [0.999149978, 0.27766943, 0.00466009509],
                [0.951893687, 1.4958142],
                [0.5, 3.0],
            ),
            (
                json!({"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}),
                [0.999958694, 0.493843466, 2.42873499e-09],
                [1.05846334, 0.728860617],
                [1.0, -2.0],
            ),
            (
                json!({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction", "rescale_betas_zero_snr": true}),
                [0.999149978, 0.242358997, 0.0],
                [0.927512586, 1.62667799],
                [-0.624275923, 3.21775055],
            ),
        ];
        for (config, alphas, seen, told) in cases {
            let s = NoiseSchedule::from_config(&config).unwrap();
            let near =
                |a: f64, b: f64| assert!((a - b).abs() <= 1e-5 * b.abs().max(1e-2), "{config}: {a} {b}");
            for (step, want) in [0, 499, 999].into_iter().zip(alphas) {
                near(s.share(step), want);
            }
            let found = s.noised(&[1.0, -2.0], &[0.5, 3.0], 499);
            found.0.iter().zip(seen).for_each(|(a, b)| near(f64::from(*a), b));
            found.1.iter().zip(told).for_each(|(a, b)| near(f64::from(*a), b));
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let says = |c: Value| NoiseSchedule::from_config(&c).unwrap_err();
        assert!(says(json!({"_class_name": "FlowMatchEulerDiscreteScheduler"})).contains("FlowMatchEuler"));
        assert!(says(json!({"_class_name": "KarrasVeScheduler"})).contains("KarrasVe"));
        assert!(
            says(json!({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": true}))
                .contains("UniPC")
        );
        assert!(says(json!({"trained_betas": [0.1, "x"]})).contains("trained_betas"));
        let none = json!({"trained_betas": [0.0, 0.0], "rescale_betas_zero_snr": true});
        assert!(says(none).contains("cannot be rescaled"));
        assert!(says(json!({"beta_schedule": "sigmoid"})).contains("\"sigmoid\""));
        assert!(says(json!({"num_train_timesteps": 1})).contains("num_train_timesteps"));
        assert!(says(json!({"beta_end": 2})).contains("`beta_end` is 2"));
        assert!(says(json!({"trained_betas": [0.1, -1.0]})).contains("a beta is -1"));
        assert!(says(json!({"prediction_type": "flow"})).contains("\"flow\""));
    }
}
