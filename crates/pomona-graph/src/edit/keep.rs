//! `keep`: of a coupled axis group only the given indices remain.

use std::collections::HashSet;

use super::work::Work;
use crate::axis::{Axis, AxisMap, GroupRule, cut, reinfer};
use crate::graph::Graph;
use crate::tensor::TensorId;

/// Cuts of several groups that wait to be made in one pass over the graph.
pub(super) struct Pending {
    map: AxisMap,
    removed: HashSet<u32>,
}

/// Adds a cut to those that wait. Indices count what the edits before leave, also those that wait: cuts of several layers
/// behind one Concat are made together, as the groups of a norm behind it only come out equal when all are made.
pub(super) fn keep(
    work: &mut Work,
    pending: &mut Option<Pending>,
    group: &str,
    indices: &[u32],
) -> Result<(), String> {
    let (tensor, axis) = member(work, group)?;
    if pending.is_none() {
        let map = AxisMap::new(&work.graph).map_err(|e| e.to_string())?;
        *pending = Some(Pending { map, removed: HashSet::new() });
    }
    let Some(Pending { map, removed }) = pending else { return Ok(()) };
    let left = map.classes(Axis::Tensor(tensor, axis)).filter(|c| !removed.contains(c));
    let classes: Vec<u32> = left.collect();
    check_indices(indices, classes.len(), group)?;
    let mut marks = vec![false; classes.len()];
    indices.iter().for_each(|i| marks[*i as usize] = true);
    let stays: HashSet<u32> = indices.iter().map(|i| classes[*i as usize]).collect();
    for (i, class) in classes.iter().enumerate().filter(|(i, _)| !marks[*i]) {
        if stays.contains(class) {
            let with = indices.iter().find(|k| classes[**k as usize] == *class);
            return Err(format!(
                "index {i} of `{group}` goes with index {}: keep or cut both",
                with.unwrap_or(&0)
            ));
        }
        if let Some(why) = map.lock_of(*class) {
            return Err(format!("index {i} of `{group}` cannot go: {why}"));
        }
        removed.insert(*class);
    }
    Ok(())
}

/// Makes the cuts that wait.
pub(super) fn flush(work: &mut Work, pending: &mut Option<Pending>) -> Result<(), String> {
    if let Some(Pending { map, mut removed }) = pending.take()
        && !removed.is_empty()
    {
        cut(work, &map, &mut removed, GroupRule::EqualCounts)?;
        reinfer(&mut work.graph)?;
    }
    Ok(())
}

fn member(work: &Work, group: &str) -> Result<(TensorId, usize), String> {
    let graph: &Graph = &work.graph;
    let form = || format!("`{group}` names no axis: a group is written `<tensor name>:<axis>`");
    let (name, axis) = group.rsplit_once(':').ok_or_else(form)?;
    let axis: usize = axis.parse().map_err(|_| form())?;
    let id = graph.find_tensor(name).ok_or_else(|| {
        format!("there is no tensor `{name}` in `{}`: an earlier edit may have removed it", graph.name)
    })?;
    let shape = &graph.tensor(id).shape;
    if axis >= shape.len() {
        return Err(format!("`{name}` of shape {shape:?} has no axis {axis}"));
    }
    Ok((id, axis))
}

fn check_indices(indices: &[u32], len: usize, group: &str) -> Result<(), String> {
    if indices.is_empty() {
        return Err(format!("`{group}` would keep nothing: remove its module instead"));
    }
    if indices.windows(2).any(|w| w[0] >= w[1]) {
        return Err(format!("the indices for `{group}` must ascend, each once"));
    }
    match indices.last() {
        Some(last) if *last as usize >= len => {
            Err(format!("`{group}` has {len} indices; {last} is not one of them"))
        }
        _ => Ok(()),
    }
}
