//! Stock names for an edited graph: the numbers of every list `prefix.N` run from 0 again.

use std::collections::BTreeMap;

use crate::graph::Graph;
use crate::region::block_numbers;

/// For every member of a list `prefix.N` whose number has a gap before it, its path and the path with the new number.
/// Paths are those of the model that the graph came from, outer lists renumbered too: with `a.1` gone,
/// `a.2.b.3 -> a.1.b.2` where `a.2.b.2` is gone as well. Keys are complete prefixes; [`renamed`] applies the map.
///
/// A list of modules of different kinds under fixed names (the operators of a `Sequential`) has numbers too: exporters
/// pass the lists whose numbers their format closes up, for example `model.layers`.
pub fn renumber(graph: &Graph, lists: &dyn Fn(&str) -> bool) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    // A list comes before the lists inside its members: its path is a prefix of theirs.
    for (list, numbers) in block_numbers(graph) {
        if !lists(&list) {
            continue;
        }
        for (new, old) in numbers.into_iter().enumerate() {
            let path = format!("{list}.{old}");
            let outer = renamed(&list, &map);
            let target = format!("{outer}.{new}");
            if target != path {
                map.insert(path, target);
            }
        }
    }
    map
}

/// A path or tensor name after renumbering: its longest renumbered prefix is replaced.
pub fn renamed(name: &str, map: &BTreeMap<String, String>) -> String {
    let mut end = name.len();
    loop {
        if let Some(new) = map.get(&name[..end]) {
            return format!("{new}{}", &name[end..]);
        }
        match name[..end].rfind('.') {
            Some(dot) => end = dot,
            None => return name.to_owned(),
        }
    }
}
