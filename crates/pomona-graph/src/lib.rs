//! Graphs of neural networks: shapes, regions, edits, plans and weight recipes.
