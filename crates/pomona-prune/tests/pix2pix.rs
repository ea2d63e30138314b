//! The pix2pix importer's graph is the one that the specification counts, and its levels go as the paper says.
#![allow(clippy::unwrap_used, reason = "tests")]

mod nets;

use pomona_graph::apply;
use pomona_models::open;
use pomona_prune::{drop_levels, report};

fn opened(config: &str) -> pomona_graph::Graph {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, config).unwrap();
    open(&path).unwrap().components.remove(0).graph
}

#[test]
fn the_imported_network_has_the_published_counts_with_and_without_inner_levels() {
    let graph = opened(r#"{"architecture": "unet_256"}"#);
    for (drop, parameters) in
        [(0, 54_413_955), (1, 41_828_995), (2, 29_244_035), (3, 16_659_075), (4, 6_171_267)]
    {
        let cut = apply(&graph, &drop_levels(&graph, drop).unwrap()).unwrap().0;
        let built = nets::pix2pix(8 - drop, 64, 256);
        let (a, b) = (report(&cut).unwrap(), report(&built).unwrap());
        assert_eq!((a.parameters, a.macs), (parameters, b.macs), "{drop} levels out");
    }
    let one = opened(r#"{"architecture": "unet_256", "input_nc": 1, "output_nc": 1}"#);
    assert_eq!(report(&one).unwrap().parameters, 54_407_809, "what the original's log prints");
}
