//! `pomona finetune` and `pomona distill`: one run, from data to a written model.

mod data;
mod output;
mod progress;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pomona_exec::{Device, Tensor, WeightProvider};
use pomona_graph::{BatchStatistics, Graph, Op, Role, TensorId};
use pomona_models::{Component, Model, check_format};
use pomona_report::units;
use pomona_task::{ModelWeights, Residence};
use pomona_train::adapter::{self, LowRank, Site};
use pomona_train::checkpoint;
use pomona_train::data::Few;
use pomona_train::{
    Course, Ended, Kind, Limit, Losses, Network, Normalise, Parameters, Rule, Run, Running, Schedule, Source,
    Term, need, shared_prefix, train,
};
use serde_json::json;

use crate::args::{Usage, WriteOptions};
use crate::context::{beside, check_runs, component, memory_available, open_model};
use crate::train_args::{Distill, Finetune, RuleName, TrainOptions};
use crate::ui::Ui;

pub fn finetune(a: &Finetune, ui: &Ui) -> Result<()> {
    run(&Job { model: &a.model, teacher: None, train: &a.train, write: &a.write }, ui)
}

pub fn distill(a: &Distill, ui: &Ui) -> Result<()> {
    run(&Job { model: &a.model, teacher: Some(&a.teacher), train: &a.train, write: &a.write }, ui)
}

struct Job<'a> {
    model: &'a Path,
    teacher: Option<&'a Path>,
    train: &'a TrainOptions,
    write: &'a WriteOptions,
}

/// What moves, and the graph in which it does.
struct Trained {
    graph: Graph,
    parameters: Parameters,
    sites: Vec<Site>,
    low: Option<LowRank>,
}

fn run(job: &Job<'_>, ui: &Ui) -> Result<()> {
    let (o, out) = (job.train, &job.write.out);
    if out.exists() && !job.write.force {
        bail!(
            "{}: exists: choose another name, or --force to replace it when the new one is done",
            out.display()
        );
    }
    if o.steps.is_none() && o.epochs.is_none() && o.minutes.is_none() {
        bail!(Usage("how long to train is not said: give --steps, --epochs or --minutes".to_owned()));
    }
    let model = open_model(job.model)?;
    check_runs(&model)?;
    model.components.iter().try_for_each(|c| c.weights("training").map(|_| ()))?;
    let component = component(&model, o.component.as_deref())?;
    check_format(&model, &component.graph, super::output_format(job.write.format))?;
    pomona_models::check_unused(&model, job.write.drop_unused)?;
    let teacher = job.teacher.map(open_model).transpose()?;
    let teacher = teacher.as_ref().map(|t| {
        check_runs(t)?;
        crate::context::component(t, o.component.as_deref().filter(|_| t.components.len() > 1))
    });
    let teacher = teacher.transpose()?;

    let data::Read { source, seen } = data::read(&model, component, &o.data, (o, data::Use::Train))?;
    ui.say(format!("data: {}", source.describe()));
    let held = match o.valid.as_slice() {
        [] => None,
        files => Some(data::read(&model, component, files, (o, data::Use::HoldOut(&seen)))?.source),
    };
    let held = held.as_deref().map(|held| Few::evenly(held, o.valid_samples));
    if let Some(held) = &held {
        ui.say(format!("held out: {}", held.describe()));
    }
    let course = course(o, source.as_ref());
    let mut trained = trained(component, o, &course)?;
    let terms = terms(o, source.as_ref(), teacher.is_some());
    let output = output_port(component)?;
    let rule = course.rule;
    let losses = Losses::resolve(
        &terms,
        &output,
        &trained.graph,
        teacher.map(|t| &t.graph),
        (&mut trained.parameters, &rule, o.seed),
    )?;
    let moving: BTreeSet<TensorId> = trained.parameters.of_graph.keys().copied().collect();
    let held_bytes = source.holds() + held.as_ref().map_or(0, Source::holds);
    state_memory(&trained, &moving, &losses, (&course, held_bytes), (o, component, teacher), ui)?;

    let device = Device::cpu();
    let frozen = ModelWeights::new(component, &device, Residence::Memory);
    // What trains in part keeps the statistics that the rest was trained with.
    if trained.low.is_none() && o.train.is_empty() && !o.freeze_statistics {
        trained.parameters.running = Running::of(&trained.graph, &frozen, course.average.is_some())?;
    }
    let taught = teacher.map(|t| ModelWeights::new(t, &device, Residence::Memory));
    let network = teacher.zip(taught.as_ref()).map(|(t, w)| Network { graph: &t.graph, weights: w });
    let shared = match network {
        Some(teacher) if losses.needs_teacher() => {
            let equal = |s: TensorId, t: TensorId| Ok(same(&frozen.get(s)?, &teacher.weights.get(t)?)?);
            shared_prefix(teacher.graph, &trained.graph, &moving, &equal)?
        }
        _ => Vec::new(),
    };
    if !shared.is_empty() {
        let ends: Vec<String> = shared.iter().map(|(_, s)| trained.graph.value_ref(*s).0).collect();
        ui.say(format!(
            "student and teacher are one model up to {}: that part runs once a batch",
            ends.join(", ")
        ));
    }
    let folder = o.run_dir.clone().unwrap_or_else(|| beside(out, "train"));
    let _held = checkpoint::hold(&folder)?;
    refuse_to_mix(&folder, o.resume, job.write.force)?;
    let identity = json!({
        "course": course, "loss": terms.iter().map(Term::to_string).collect::<Vec<_>>(),
        "data": source.fingerprint(), "model": component.fingerprint()?,
        "teacher": teacher.map(Component::fingerprint).transpose()?,
        "adapters": trained.low, "targets": o.lora_targets.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "running_statistics": trained.parameters.running.names().count(),
        "train": o.train.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    let stop = signals()?;
    let job_of = Run {
        student: Network { graph: &trained.graph, weights: &frozen },
        teacher: network.filter(|_| losses.needs_teacher()),
        shared: &shared,
        losses: &losses,
        source: source.as_ref(),
        valid: held.as_ref().map(|h| (h as &dyn Source, o.valid_every)),
        course: &course,
        folder: &folder,
        identity: identity.clone(),
        save_every: Duration::from_secs_f64(o.save_every * 60.0),
        save_steps: o.save_steps,
        resume: o.resume,
    };
    let mut line = progress::Line::new(ui, course.limit, source.unit());
    let done = train(&job_of, &mut trained.parameters, &stop, &mut |report| line.show(report));
    line.finish();
    output::curves(&folder, &losses)?;
    let done = done?;
    if done.ended == Ended::Stopped {
        bail!(
            "stopped after step {}: {} holds the state, and the same command with --resume goes on",
            done.progress.step,
            done.checkpoint.display()
        );
    }
    drop(job_of);
    let written = output::Written { job, model: &model, trained: &trained, identity, folder: &folder };
    written.finish(&done, source.unit(), ui)
}

/// A folder of another run is not written into.
fn refuse_to_mix(folder: &Path, resume: bool, force: bool) -> Result<()> {
    let old = checkpoint::list(folder)?;
    if let Some((step, _)) = old.last()
        && !resume
    {
        if !force {
            bail!(
                "{}: holds a run that came to step {step}: --resume goes on with it, --force begins anew",
                folder.display()
            );
        }
        for (_, path) in &old {
            std::fs::remove_dir_all(path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn course(o: &TrainOptions, source: &dyn Source) -> Course {
    let a_step = (o.batch * o.accumulate) as f64;
    let epochs = o.epochs.map(|e| ((e * source.samples() as f64 / a_step).round() as u64).max(1));
    Course {
        limit: Limit { steps: o.steps.or(epochs), seconds: o.minutes.map(|m| m * 60.0) },
        batch: o.batch,
        accumulate: o.accumulate,
        seed: o.seed,
        rule: match o.optimizer {
            RuleName::Adamw => Rule::AdamW { betas: o.betas, eps: o.eps },
            RuleName::Sgd => Rule::Sgd { momentum: o.momentum },
        },
        schedule: Schedule { rate: o.lr, decay: o.schedule.into(), warmup: o.warmup, floor: o.lr_floor },
        weight_decay: o.weight_decay,
        clip: Some(o.clip).filter(|c| *c > 0.0),
        average: o.ema,
        recompute: o.gradient_checkpointing,
    }
}

/// Parameters of the whole network or of adapters.
fn trained(component: &Component, o: &TrainOptions, course: &Course) -> Result<Trained> {
    let averaged = course.average.is_some();
    let mut parameters = Parameters::default();
    if let Some(rank) = o.lora_rank {
        let low = LowRank { rank, alpha: o.lora_alpha, dropout: o.lora_dropout };
        let running = |op: &Op| matches!(op, Op::BatchNorm { statistics: BatchStatistics::Running, .. });
        if low.dropout > 0.0 && component.graph.nodes.iter().any(|n| running(&n.op)) {
            bail!(Usage(
                "--lora-dropout does nothing here: with adapters, a network with BatchNorm is run as at inference".to_owned()
            ));
        }
        let (graph, sites) = adapter::adapt(&component.graph, &o.lora_targets, low)?;
        adapter::start(&sites, low, o.seed, &course.rule, averaged, &mut parameters)?;
        return Ok(Trained { graph, parameters, sites, low: Some(low) });
    }
    let graph = component.graph.clone();
    let used: BTreeSet<TensorId> = graph.nodes.iter().flat_map(|n| n.weights.values().copied()).collect();
    let meant = |name: &str| o.train.is_empty() || o.train.iter().any(|p| p.matches(name));
    for (id, t) in graph.iter_tensors().filter(|(id, t)| t.role == Role::Parameter && used.contains(id)) {
        if meant(&t.name) {
            let value = Tensor::from_f32(component.materialise(&t.name)?, &t.shape, &Device::cpu())?;
            let at = parameters.add(t.name.clone(), value, &course.rule, averaged)?;
            parameters.of_graph.insert(id, at);
        }
    }
    if parameters.list.is_empty() {
        let asked = o.train.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        bail!("no tensor is called {asked}: `pomona inspect MODEL --depth 9` shows the modules");
    }
    Ok(Trained { graph, parameters, sites: Vec::new(), low: None })
}

fn terms(o: &TrainOptions, source: &dyn Source, teacher: bool) -> Vec<Term> {
    if !o.loss.is_empty() {
        return o.loss.clone();
    }
    let term = |kind| Term { kind, weight: 1.0, normalise: Normalise::Mean };
    let own = source.loss();
    let followed = match own {
        Some(Kind::CrossEntropy) => Kind::Kl { temperature: 1.0 },
        _ => Kind::OutputMse,
    };
    own.into_iter().chain(teacher.then_some(followed)).map(term).collect()
}

fn output_port(component: &Component) -> Result<String> {
    let graph = &component.graph;
    match graph.outputs.as_slice() {
        _ if graph.output("logits").is_some() => Ok("logits".to_owned()),
        [one] => Ok(one.name.clone()),
        many => {
            let names: Vec<&str> = many.iter().map(|p| p.name.as_str()).collect();
            bail!("the model has the outputs {}: only networks with one are trained", names.join(", "))
        }
    }
}

fn state_memory(
    trained: &Trained,
    moving: &BTreeSet<TensorId>,
    losses: &Losses,
    (course, held): (&Course, u64),
    (o, component, teacher): (&TrainOptions, &Component, Option<&Component>),
    ui: &Ui,
) -> Result<()> {
    let teachers: Vec<&Graph> = teacher.iter().map(|t| &t.graph).collect();
    let elements = trained.parameters.elements();
    let buffers =
        course.rule.buffers() + u64::from(course.average.is_some()) + u64::from(course.accumulate > 1);
    let mut need = need(
        &trained.graph,
        (moving, elements),
        buffers,
        (o.batch, o.seq),
        (losses.student_values(), &teachers),
        &course.kept_values(&trained.graph),
    )?;
    need.weights = need.weights.saturating_add(held);
    let free = memory_available();
    ui.say(format!(
        "trains {} parameters of a model of {}; memory: about {} (weights {}, optimizer {}, activations {}, outputs {})",
        units::exact(elements),
        units::exact(component.graph.parameters()),
        units::bytes(need.total()),
        units::bytes(need.weights),
        units::bytes(need.optimiser),
        units::bytes(need.activations),
        units::bytes(need.outputs)
    ));
    if need.total() > free && !o.ignore_memory {
        bail!(
            "about {} of memory are needed and {} are free: a smaller --batch with more --accumulate, a smaller --seq, \
             --gradient-checkpointing or --lora-rank need less; --ignore-memory starts anyway",
            units::bytes(need.total()),
            units::bytes(free)
        );
    }
    Ok(())
}

fn same(a: &Tensor, b: &Tensor) -> pomona_exec::Result<bool> {
    let equal =
        |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
    a.with_f32(|a| b.with_f32(|b| equal(a, b)))?
}

/// Set by the first SIGINT or SIGTERM; a second one ends the program at once.
fn signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// The model that a run began from, for records.
fn source_name(model: &Model) -> String {
    let path = model.path.canonicalize().unwrap_or_else(|_| model.path.clone());
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}
