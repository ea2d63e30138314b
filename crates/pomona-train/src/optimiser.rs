//! Update rules over one parameter's buffer.

use pomona_exec::{AdamW, Moving, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

/// Elements that a task takes.
const CHUNK: usize = 1 << 14;

/// How a parameter moves along its gradient.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Rule {
    /// AdamW with decoupled decay, as PyTorch defines it.
    AdamW {
        /// Decay of the running means of gradients and of their squares.
        betas: [f32; 2],
        /// Added to the root of the mean of squares.
        eps: f32,
    },
    /// Gradient descent with momentum, as PyTorch defines it: decay goes into the gradient.
    Sgd {
        /// Share of the last update that is kept.
        momentum: f32,
    },
}

/// What a rule keeps of a parameter's past.
#[derive(Clone, Debug)]
pub enum State {
    /// AdamW's running means.
    Moments(Moving),
    /// The running update.
    Momentum {
        /// An element a parameter.
        update: Vec<f32>,
        /// Steps so far: the first has no past.
        steps: u32,
    },
}

impl Rule {
    /// Of a parameter of this size before its first step.
    pub fn start(&self, elements: usize) -> State {
        match self {
            Rule::AdamW { .. } => State::Moments(Moving::new(elements)),
            Rule::Sgd { .. } => State::Momentum { update: vec![0.0; elements], steps: 0 },
        }
    }

    /// Buffers of a parameter's size that the rule keeps.
    pub fn buffers(&self) -> u64 {
        match self {
            Rule::AdamW { .. } => 2,
            Rule::Sgd { .. } => 1,
        }
    }

    /// One step in place.
    ///
    /// # Errors
    /// Where shapes differ.
    pub fn step(
        &self,
        parameter: &mut Tensor,
        gradient: &Tensor,
        state: &mut State,
        rate: f64,
        decay: f64,
    ) -> Result<()> {
        match (self, state) {
            (Rule::AdamW { betas, eps }, State::Moments(moving)) => {
                let rule = AdamW { rate: rate as f32, betas: *betas, eps: *eps, decay: decay as f32 };
                Ok(rule.step(parameter, gradient, moving)?)
            }
            (Rule::Sgd { momentum }, State::Momentum { update, steps }) => {
                if gradient.shape() != parameter.shape() || update.len() != parameter.elements() {
                    let message = format!("{parameter:?} cannot take a step along {gradient:?}");
                    return Err(TrainError::Unfit(message));
                }
                // The first update is the gradient itself.
                let keep = if *steps == 0 { 0.0 } else { *momentum };
                *steps += 1;
                let (rate, decay) = (rate as f32, decay as f32);
                gradient.with_f32(|g| {
                    parameter.update(|p| {
                        (p.par_chunks_mut(CHUNK), g.par_chunks(CHUNK), update.par_chunks_mut(CHUNK))
                            .into_par_iter()
                            .for_each(|(p, g, u)| {
                                for ((p, g), u) in p.iter_mut().zip(g).zip(u.iter_mut()) {
                                    *u = keep * *u + (g + decay * *p);
                                    *p -= rate * *u;
                                }
                            });
                    })
                })??;
                Ok(())
            }
            _ => Err(TrainError::Unfit("the state of another update rule was found".to_owned())),
        }
    }
}
