//! `bypass`: every use of one value reads an earlier one of equal shape; in an opaque model, whole blocks go by name.

use super::work::{Usage, Work};
use crate::dim::show_shape;
use crate::graph::ValueRef;
use crate::region::{block_numbers, numbered};

pub(super) fn bypass(work: &mut Work, from: &ValueRef, to: &ValueRef) -> Result<(), String> {
    if work.graph.nodes.is_empty() {
        return opaque(work, from, to);
    }
    let new = work.source(from)?;
    let old = work.value(to)?;
    if new == old {
        return Err(format!("`{}` would read itself: `from` and `to` must be different values", to.0));
    }
    let (a, b) = (work.graph.value(new), work.graph.value(old));
    if a != b {
        return Err(format!(
            "`{}` is {:?} {} and `{}` is {:?} {}: only a value of equal type and shape can take over; `replace` puts \
             something else in a module's place",
            from.0,
            a.ty,
            show_shape(&a.shape),
            to.0,
            b.ty,
            show_shape(&b.shape)
        ));
    }
    let before = Usage::of(&work.graph, None);
    let taken_by = work.graph.value_ref(new);
    work.replace_uses(old, new);
    work.sort().map_err(|why| format!("`{}` is computed from `{}`: {why}", from.0, to.0))?;
    work.renamed.insert(to.clone(), taken_by);
    work.sweep(&before);
    Ok(())
}

/// Without nodes a block path `prefix.N` stands for what the block gives and `@prefix` for what enters the first: all
/// tensors of the blocks after `from`, up to and including `to`, go.
fn opaque(work: &mut Work, from: &ValueRef, to: &ValueRef) -> Result<(), String> {
    let not_a_block = |r: &ValueRef| {
        format!(
            "`{}` is no block of the opaque model `{}`: blocks are named `prefix.N`",
            r.0, work.graph.name
        )
    };
    let (list, last) = numbered(&to.0).ok_or_else(|| not_a_block(to))?;
    let first = match from.0.strip_prefix('@') {
        Some(prefix) if prefix == list => 0,
        Some(_) => return Err(not_a_block(from)),
        None => match numbered(&from.0) {
            Some((l, n)) if l == list && n < last => n + 1,
            Some(_) => return Err(format!("`{}` does not come before `{}` in one list", from.0, to.0)),
            None => return Err(not_a_block(from)),
        },
    };
    let numbers = block_numbers(&work.graph);
    let Some(present) = numbers.get(list).filter(|n| n.contains(&last)) else {
        return Err(work.missing_node(&to.0, "block"));
    };
    let blocks: Vec<String> = present.range(first..=last).map(|n| format!("{list}.{n}")).collect();
    if blocks.len() == present.len() {
        return Err(format!("no block of `{list}` would be left"));
    }
    let inside = |name: &str| blocks.iter().any(|b| crate::region::is_under(name, b));
    work.drop_tensors(|name| inside(name));
    work.graph.modules.retain(|path, _| !inside(path));
    let edit = work.edit;
    work.gone.extend(blocks.iter().map(|b| (b.clone(), edit)));
    Ok(())
}
