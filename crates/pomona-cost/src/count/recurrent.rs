//! LSTM and GRU over a sequence.

use pomona_graph::{Direction, RecurrentCell, Slot};

use super::{Count, OpCost, Shapes, elements, plus, times};

const MATRICES: [Slot; 4] = [Slot::WeightIh, Slot::WeightHh, Slot::WeightIhReverse, Slot::WeightHhReverse];
const BIASES: [Slot; 4] = [Slot::BiasIh, Slot::BiasHh, Slot::BiasIhReverse, Slot::BiasHhReverse];

/// `full`: the products of every gate's two matrices at every step. `thop`: its own formula for `nn.LSTM` and `nn.GRU`,
/// which adds biases, gate sums and element-wise products to the matrix products.
pub(super) fn recurrent(s: &Shapes, cell: RecurrentCell, hidden: u64, direction: Direction) -> Count<OpCost> {
    let x = s.input(0)?;
    let [batch, steps, width] = x else {
        return Err(format!("its input has shape {x:?}, not [batch, tokens, width]"));
    };
    let directions = if direction == Direction::Both { 2 } else { 1 };
    let runs = times(&[*batch, *steps])?;
    let (gates, states) = match cell {
        RecurrentCell::Lstm => (4, LSTM),
        RecurrentCell::Gru => (3, GRU),
    };
    s.weight(Slot::WeightIh)?;
    s.weight(Slot::WeightHh)?;
    let matrices = sum(s, &MATRICES)?;
    let biases = sum(s, &BIASES)?;

    let inner = times(&[plus(&[*width, hidden])?, hidden])?;
    let with_bias = if s.has(Slot::BiasIh) { 3 } else { 1 };
    let gate = plus(&[inner, times(&[hidden, with_bias])?])?;
    let thop = plus(&[times(&[gate, gates])?, times(&[hidden, states.thop])?])?;

    // A gate adds its two products and takes a function.
    let cell_ops = plus(&[times(&[directions, hidden, 2 * gates + states.ops])?, biases])?;
    Ok(OpCost {
        macs_full: times(&[runs, matrices])?,
        macs_thop: times(&[runs, directions, thop])?,
        other_ops: times(&[runs, cell_ops])?,
    })
}

/// Operations an element of the state behind the gates.
struct StateOps {
    ops: u64,
    thop: u64,
}

/// `c = f*c + i*g` and `h = o*tanh(c)`; `thop` leaves out the tanh.
const LSTM: StateOps = StateOps { ops: 5, thop: 4 };
/// `r*(..)` and `h = (1-z)*n + z*h`; `thop` leaves out `1-z`.
const GRU: StateOps = StateOps { ops: 5, thop: 4 };

fn sum(s: &Shapes, slots: &[Slot]) -> Count<u64> {
    let mut total = 0;
    for shape in slots.iter().filter_map(|slot| s.weights.get(slot)) {
        total = plus(&[total, elements(shape)?])?;
    }
    Ok(total)
}
