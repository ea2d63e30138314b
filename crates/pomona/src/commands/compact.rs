//! Plans of compact Wav2Lip.

use anyhow::Result;
use pomona_exec::Device;
use pomona_graph::Plan;
use pomona_models::Model;
use pomona_prune::criteria::filters::{Aggregate, FilterCriterion};
use pomona_prune::methods::wav2lip_compact::{self, FIRST, Planning, Stays};
use pomona_task::ModelWeights;

use crate::args::Usage;
use crate::context::{TOOL, component, residence};
use crate::ui::Ui;

/// Which quarter stays.
pub struct Request<'a> {
    /// A criterion of filters, or the first quarter; L1 where there are weights and none is named.
    pub criterion: Option<&'a str>,
    pub seed: u64,
    pub streamed: bool,
}

/// The plan of a generator or its bare config.
pub fn plan(model: &Model, name: Option<&str>, request: &Request<'_>, ui: &Ui) -> Result<Plan> {
    let part = component(model, name)?;
    let fingerprint = part.fingerprint()?;
    let device = Device::cpu();
    let on = |stays| Planning {
        graph: &part.graph,
        stays,
        component: (model.components.len() > 1).then_some(part.name.as_str()),
        fingerprint: &fingerprint,
        tool: TOOL,
    };
    let criterion = match (request.criterion, &part.checkpoint) {
        (Some(FIRST), _) | (None, None) => return Ok(wav2lip_compact::plan(&on(Stays::First))?),
        (None, Some(_)) => FilterCriterion::L1,
        (Some(name), _) => {
            name.parse().map_err(|e: String| Usage(format!("--criterion: {e}, or {FIRST}")))?
        }
    };
    let weights = if criterion.needs_weights() {
        part.weights("a criterion that reads them")?;
        Some(ModelWeights::new(part, &device, residence(part, request.streamed, 0, ui)?))
    } else {
        None
    };
    let stays = Stays::Best {
        criterion,
        aggregate: Aggregate::Makers,
        seed: request.seed,
        weights: weights.as_ref().map(|w| (w as &dyn pomona_task::Weights, &device)),
    };
    Ok(wav2lip_compact::plan(&on(stays))?)
}
