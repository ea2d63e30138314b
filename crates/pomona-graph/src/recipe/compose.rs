//! Composition of recipes by substitution.
