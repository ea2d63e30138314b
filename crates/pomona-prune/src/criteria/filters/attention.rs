//! SNP's score of queries and keys (Shim et al., Structured Neuron-level Pruning to Preserve Attention Scores, arXiv 2404.11630).
//!
//! The logits of a head are a sum over its neurons, `A = Q K^T = sum_i q_i k_i^T`. With `A = sum_j s_j u_j v_j^T`, a neuron is
//! worth `sum_{j <= gamma} |cos(s_j u_j v_j^T, q_i k_i^T)|`, matrices taken as vectors: how well its part points along what
//! the logits mostly are. The singular value cancels and the cosine falls apart,
//! `cos = (u_j . q_i)(v_j . k_i) / (|q_i| |k_i|)`; with `Q = Q' R` and `K = K' P` (thin QR) the singular vectors are `Q' U` and
//! `K' V` of the small matrix `R P^T`, so that `u_j . q_i = (U^T R)_ji`. Nothing of the size of `A` is ever formed, nor Q'.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use faer::{Mat, MatRef};
use pomona_exec::{Device, Options, Tensor, evaluate};
use pomona_graph::{AttentionAttrs, Graph, NodeId, Op, ValueId};
use pomona_task::{Objective, Weights};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{PruneError, Result};
use crate::work::WorkFiles;

/// Which components of the logits lead. The paper's value is not public.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Gamma {
    /// This many.
    Count(usize),
    /// Those whose singular value is above this share of the largest.
    Share(f64),
}

impl Default for Gamma {
    fn default() -> Self {
        Self::Share(0.01)
    }
}

impl fmt::Display for Gamma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n}"),
            Self::Share(s) => write!(f, "{}%", s * 100.0),
        }
    }
}

impl From<Gamma> for String {
    fn from(g: Gamma) -> Self {
        g.to_string()
    }
}

impl FromStr for Gamma {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        let found = match s.strip_suffix('%') {
            Some(p) => {
                p.parse::<f64>().ok().filter(|p| (0.0..100.0).contains(p)).map(|p| Self::Share(p / 100.0))
            }
            None => s.parse().ok().filter(|n| *n > 0).map(Self::Count),
        };
        found.ok_or_else(|| {
            format!("`{s}`: a number of components (16), or the share of the largest singular value that they exceed (1%)")
        })
    }
}

impl TryFrom<String> for Gamma {
    type Error = String;

    fn try_from(s: String) -> std::result::Result<Self, String> {
        s.parse()
    }
}

/// The worth of each neuron of a head: `queries` `[n, d]`, `keys` `[m, d]`; `n` or `m` may be smaller than `d`. A neuron without
/// a query or a key adds nothing and is worth 0.
///
/// # Errors
/// Where the numbers are not finite, so that there is no singular value decomposition.
pub fn neurons(
    queries: MatRef<'_, f64>,
    keys: MatRef<'_, f64>,
    gamma: Gamma,
) -> std::result::Result<Vec<f64>, String> {
    let (r, p) = (queries.qr().thin_R().to_owned(), keys.qr().thin_R().to_owned());
    let core = &r * p.transpose();
    let svd = core.thin_svd().map_err(|e| format!("has no singular value decomposition ({e:?})"))?;
    let s: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    let largest = s.first().copied().unwrap_or(0.0);
    // Components that are nothing but rounding have no direction.
    let floor = largest * f64::EPSILON * queries.nrows().max(keys.nrows()).max(queries.ncols()) as f64;
    let leads = |j: usize, s: f64| match gamma {
        Gamma::Count(n) => j < n && s > floor,
        Gamma::Share(share) => s > (largest * share).max(floor),
    };
    let count = s.iter().enumerate().take_while(|(j, s)| leads(*j, **s)).count();
    let along = |vectors: MatRef<'_, f64>, of: &Mat<f64>| vectors.get(.., ..count).transpose() * of;
    let (left, right) = (along(svd.U(), &r), along(svd.V(), &p));
    let worth = |i: usize| {
        let length = r.col(i).norm_l2() * p.col(i).norm_l2();
        let sum: f64 = (0..count).map(|j| (left[(j, i)] * right[(j, i)]).abs()).sum();
        if length > 0.0 { sum / length } else { 0.0 }
    };
    Ok((0..queries.ncols()).map(worth).collect())
}

/// The mean worth of each column of the queries (`heads x width`) of every attention, over samples and, where a neuron of the
/// keys serves several heads of queries, each of these apart.
pub struct AttentionScores {
    means: BTreeMap<NodeId, Vec<f64>>,
}

const STATE: &str = "attention";

impl AttentionScores {
    /// Runs all samples forward, `at_once` together, one attention's queries and keys in memory at a time.
    ///
    /// # Errors
    /// Where the graph cannot be run, or gives numbers that are not finite.
    pub fn new(
        graph: &Graph,
        weights: &dyn Weights,
        objective: &dyn Objective,
        (device, at_once): (&Device, usize),
        gamma: Gamma,
        work: Option<&WorkFiles>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<AttentionScores> {
        let empty: Vec<(u32, Vec<f64>)> = graph
            .iter()
            .filter(|(_, n)| matches!(n.op, Op::Attention(_)))
            .map(|(id, _)| (id.0, Vec::new()))
            .collect();
        let kept = work.and_then(|w| w.load::<(usize, Vec<(u32, Vec<f64>)>)>(STATE, device));
        let (mut done, mut sums) = kept.map_or((0, empty), |(state, _)| state);
        progress(done)?;
        while done < objective.samples() {
            let rows = done..(done + at_once.max(1)).min(objective.samples());
            let feeds = objective.feeds(graph, rows.clone(), device)?;
            let mut found = Vec::with_capacity(sums.len());
            at_attentions(graph, weights, feeds, &mut |id, attrs, q, k| {
                found.push(of_batch(attrs, q, k, gamma).map_err(|why| {
                    PruneError::Unfit(format!("the logits of `{}`: {why}", graph.node(id).path))
                })?);
                Ok(())
            })?;
            for ((_, sum), new) in sums.iter_mut().zip(found) {
                sum.resize(new.len(), 0.0);
                sum.iter_mut().zip(new).for_each(|(s, n)| *s += n);
            }
            done = rows.end;
            progress(done)?;
            if let Some(work) = work.filter(|w| w.due()) {
                let began = Instant::now();
                work.save(STATE, &(done, &sums), &[])?;
                work.saved(began);
            }
        }
        let samples = done.max(1) as f64;
        let mean = |sum: Vec<f64>| sum.into_iter().map(|s| s / samples).collect();
        Ok(AttentionScores { means: sums.into_iter().map(|(id, s)| (NodeId(id), mean(s))).collect() })
    }

    /// The worth of each column of an attention's queries.
    pub fn of(&self, attention: NodeId) -> &[f64] {
        self.means.get(&attention).map_or(&[], Vec::as_slice)
    }
}

/// Calls `each` with every attention's queries and keys, in order. The graph runs from one to the next, weights let go between.
fn at_attentions(
    graph: &Graph,
    weights: &dyn Weights,
    mut feeds: pomona_exec::Feeds,
    each: &mut dyn FnMut(NodeId, &AttentionAttrs, &Tensor, &Tensor) -> Result<()>,
) -> Result<()> {
    let mut last_use = vec![0; graph.values.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|v| last_use[v.0 as usize] = i);
    }
    let mut made: Vec<ValueId> = Vec::new();
    for (i, (id, node)) in graph.iter().enumerate() {
        if let (Op::Attention(attrs), [q, k, ..]) = (&node.op, node.inputs.as_slice()) {
            let live = |v: &ValueId| last_use[v.0 as usize] >= i;
            let wanted: Vec<ValueId> = made.drain(..).filter(live).collect();
            let found = evaluate(graph, weights, &feeds, &wanted, &Options::default())?;
            weights.release();
            feeds.retain(|v, _| live(v));
            feeds.extend(wanted.into_iter().zip(found));
            let value = |v: &ValueId| {
                feeds.get(v).ok_or_else(|| {
                    PruneError::Unfit(format!("`{}` reads a value that was not made", node.path))
                })
            };
            each(id, attrs, value(q)?, value(k)?)?;
        }
        made.extend(&node.outputs);
    }
    Ok(())
}

/// Sums over the batch of each query column's worth.
fn of_batch(
    attrs: &AttentionAttrs,
    queries: &Tensor,
    keys: &Tensor,
    gamma: Gamma,
) -> std::result::Result<Vec<f64>, String> {
    let (&[batch, n, wide], &[other, m, narrow]) = (queries.shape(), keys.shape()) else {
        return Err(format!("come from queries of shape {:?}", queries.shape()));
    };
    let (heads, kv_heads) = (attrs.heads.max(1), attrs.kv_heads.max(1));
    let (width, share) = (wide / heads, heads / kv_heads);
    if batch != other || width == 0 || narrow / kv_heads != width || share == 0 {
        return Err(format!("come from queries {:?} and keys {:?}", queries.shape(), keys.shape()));
    }
    let fail = |e: pomona_exec::ExecError| e.to_string();
    let (q, k) = (queries.to_f32().map_err(fail)?, keys.to_f32().map_err(fail)?);
    let head = |values: &[f32], sample: usize, rows: usize, all: usize, from: usize| {
        let at = |i, j| f64::from(values[(sample * rows + i) * all + from + j]);
        Mat::from_fn(rows, width, at)
    };
    let one = |job: usize| {
        let (sample, h) = (job / heads, job % heads);
        let q = head(&q, sample, n, wide, h * width);
        let k = head(&k, sample, m, narrow, h / share * width);
        neurons(q.as_ref(), k.as_ref(), gamma)
    };
    let found: std::result::Result<Vec<Vec<f64>>, String> =
        (0..batch * heads).into_par_iter().map(one).collect();
    let mut sums = vec![0.0; heads * width];
    for (job, worth) in found?.into_iter().enumerate() {
        let from = job % heads * width;
        sums[from..from + width].iter_mut().zip(worth).for_each(|(s, w)| *s += w);
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn random(rows: usize, cols: usize, seed: u64) -> Mat<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Mat::from_fn(rows, cols, |_, j| (2.0 * rng.random::<f64>() - 1.0) * (1.0 + j as f64))
    }

    /// The definition: logits and every neuron's part as matrices of the logits' size, their cosines entry by entry.
    fn by_definition(q: &Mat<f64>, k: &Mat<f64>, gamma: usize) -> Vec<f64> {
        let logits = q * k.transpose();
        let svd = logits.thin_svd().unwrap();
        let part = |a: faer::ColRef<'_, f64>, b: faer::ColRef<'_, f64>, scale: f64| {
            let all = (0..a.nrows()).flat_map(|x| (0..b.nrows()).map(move |y| (x, y)));
            all.map(|(x, y)| scale * a[x] * b[y]).collect::<Vec<f64>>()
        };
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let worth = |i: usize| {
            let own = part(q.col(i), k.col(i), 1.0);
            let cos = |j: usize| {
                let component = part(svd.U().col(j), svd.V().col(j), svd.S().column_vector()[j]);
                dot(&own, &component) / (dot(&own, &own) * dot(&component, &component)).sqrt()
            };
            (0..gamma).map(|j| cos(j).abs()).sum()
        };
        (0..q.ncols()).map(worth).collect()
    }

    #[test]
    fn the_shortcut_is_the_definition() {
        // Tokens, other tokens, width, components: wide, narrow, fewer tokens than neurons, cross.
        let table =
            [(20, 20, 8, 8), (20, 20, 8, 3), (5, 5, 8, 4), (6, 17, 8, 5), (17, 3, 8, 2), (9, 9, 1, 1)];
        for (case, (n, m, d, gamma)) in table.into_iter().enumerate() {
            let (q, k) = (random(n, d, case as u64), random(m, d, 100 + case as u64));
            let found = neurons(q.as_ref(), k.as_ref(), Gamma::Count(gamma)).unwrap();
            let expected = by_definition(&q, &k, gamma);
            let gap = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(gap < 1e-10, "case {case}: {found:?} {expected:?}");
        }
    }

    #[test]
    fn a_share_takes_the_components_above_it() {
        // Orthogonal neurons: the singular values are the products of their lengths, each neuron one component.
        let lengths: [f64; 4] = [10.0, 1.0, 0.2, 0.01];
        let diagonal = Mat::from_fn(6, 4, |i, j| if i == j { lengths[j].sqrt() } else { 0.0 });
        let of = |gamma: &str| neurons(diagonal.as_ref(), diagonal.as_ref(), gamma.parse().unwrap()).unwrap();
        let near = |a: Vec<f64>, b: [f64; 4]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(near(of("1%"), [1.0, 1.0, 1.0, 0.0]));
        assert!(near(of("0%"), [1.0; 4]));
        assert!(near(of("2"), [1.0, 1.0, 0.0, 0.0]));
        // More than there are; a neuron without a query.
        assert!(near(of("99"), [1.0; 4]));
        let zero = Mat::from_fn(6, 4, |i, j| if i == j && j != 1 { 1.0 } else { 0.0 });
        let found = neurons(zero.as_ref(), diagonal.as_ref(), Gamma::Share(0.05)).unwrap();
        // The roots of 10, 0.2 and 0.01: 3.16, 0.45, 0.1.
        assert!(near(found, [1.0, 0.0, 1.0, 0.0]), "0.1 / 3.16 is below 5 %");
        for bad in ["0", "-1", "x", "100%", "1.5"] {
            assert!(bad.parse::<Gamma>().is_err(), "{bad}");
        }
        assert_eq!("12.5%".parse::<Gamma>().unwrap().to_string(), "12.5%");
    }
}
