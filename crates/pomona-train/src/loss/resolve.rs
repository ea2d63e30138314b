//! Terms to values of two graphs.

use std::collections::BTreeMap;

use pomona_exec::{Device, Tensor};
use pomona_graph::{Graph, ValueId, blocks};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::task::unfit;
use super::{Kind, Losses, Place, Term, tap};
use crate::error::Result;
use crate::optimiser::Rule;
use crate::parameters::Parameters;

impl Losses {
    /// Finds the values of every term; projections are added to the parameters, from the seed.
    ///
    /// # Errors
    /// Where a term needs a teacher and there is none, a tap is in neither graph, or an output is missing.
    pub fn resolve(
        terms: &[Term],
        output: &str,
        student: &Graph,
        teacher: Option<&Graph>,
        (parameters, rule, seed): (&mut Parameters, &Rule, u64),
    ) -> Result<Losses> {
        if terms.is_empty() {
            return Err(unfit("no loss is given: --loss says what is to become small"));
        }
        let mut out = Losses { terms: Vec::new(), student: Vec::new(), teacher: Vec::new() };
        for term in terms {
            let pairs: Vec<(ValueId, Option<ValueId>)> = match (&term.kind, teacher) {
                (kind, None) if kind.needs_teacher() => {
                    return Err(unfit(format!("the loss {} needs a teacher: give --teacher", kind.name())));
                }
                (Kind::Features { taps }, Some(teacher)) => {
                    features(taps, student, teacher)?.into_iter().map(|(s, t)| (s, Some(t))).collect()
                }
                (kind, teacher) => {
                    let other = teacher.filter(|_| kind.needs_teacher());
                    vec![(port(student, output)?, other.map(|t| port(t, output)).transpose()?)]
                }
            };
            let mut places = Vec::with_capacity(pairs.len());
            for (s, t) in pairs {
                let projection = match (&term.kind, t, teacher) {
                    (Kind::Features { .. }, Some(t), Some(teacher)) => {
                        project(student, s, teacher, t, (parameters, rule, seed))?
                    }
                    _ => None,
                };
                places.push(Place {
                    student: number(&mut out.student, s),
                    teacher: t.map(|t| number(&mut out.teacher, t)),
                    projection,
                });
            }
            out.terms.push((term.clone(), places));
        }
        Ok(out)
    }
}

fn number(list: &mut Vec<ValueId>, v: ValueId) -> usize {
    list.iter().position(|x| *x == v).unwrap_or_else(|| {
        list.push(v);
        list.len() - 1
    })
}

fn port(graph: &Graph, output: &str) -> Result<ValueId> {
    let names = || graph.outputs.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
    graph
        .output(output)
        .ok_or_else(|| unfit(format!("graph `{}` has no output `{output}`; it has {}", graph.name, names())))
}

/// Pairs of values; without paths the outputs of the student's blocks and of the teacher's of the same path.
fn features(paths: &[String], student: &Graph, teacher: &Graph) -> Result<Vec<(ValueId, ValueId)>> {
    if paths.is_empty() {
        let own = blocks(student).into_iter();
        let pair = |path: String| Some((tap(student, &path)?, tap(teacher, &path)?));
        let found: Vec<_> = own.filter_map(|b| pair(b.path)).collect();
        return match found.is_empty() {
            true => {
                Err(unfit("student and teacher have no block of one path: name taps (features,taps=A~B)"))
            }
            false => Ok(found),
        };
    }
    let of = |graph: &Graph, path: &str, whose: &str| {
        tap(graph, path).ok_or_else(|| unfit(format!("the {whose} has no node or module `{path}` to tap")))
    };
    let pair = |path: &String| {
        let (s, t) = path.split_once('~').unwrap_or((path, path));
        Ok((of(student, s, "student")?, of(teacher, t, "teacher")?))
    };
    paths.iter().map(pair).collect()
}

/// A projection where the widths differ, uniform as PyTorch starts a Linear.
fn project(
    student: &Graph,
    s: ValueId,
    teacher: &Graph,
    t: ValueId,
    (parameters, rule, seed): (&mut Parameters, &Rule, u64),
) -> Result<Option<usize>> {
    let width = |graph: &Graph, v: ValueId| {
        let shape = &graph.value(v).shape;
        let axis = if shape.len() == 4 { 1 } else { shape.len().saturating_sub(1) };
        let size = shape.get(axis).and_then(|d| d.as_int()).and_then(|n| usize::try_from(n).ok());
        size.ok_or_else(|| unfit(format!("the width of `{}` is not known", graph.value_ref(v).0)))
    };
    let (from, to) = (width(student, s)?, width(teacher, t)?);
    if from == to {
        return Ok(None);
    }
    let name = format!("projection.{}", student.value_ref(s).0);
    if let Some(known) = parameters.list.iter().position(|p| p.name == name) {
        return Ok(Some(known));
    }
    let mut rng = ChaCha8Rng::from_seed(*blake3::hash(format!("{seed} {name}").as_bytes()).as_bytes());
    let bound = (1.0 / from as f64).sqrt() as f32;
    let values = (0..from * to).map(|_| rng.random_range(-bound..bound)).collect();
    let value = Tensor::from_f32(values, &[to, from], &Device::cpu())?;
    parameters.add(name, value, rule, false).map(Some)
}

/// Losses by the names of their terms, made unique.
pub(crate) fn names(losses: &Losses) -> Vec<String> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    losses
        .terms()
        .map(|t| {
            let n = seen.entry(t.kind.name()).or_default();
            *n += 1;
            if *n == 1 { t.kind.name().to_owned() } else { format!("{}-{n}", t.kind.name()) }
        })
        .collect()
}
