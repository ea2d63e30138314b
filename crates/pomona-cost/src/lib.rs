//! What a neural network costs: parameters, MACs, bytes, activations, device rooflines.
