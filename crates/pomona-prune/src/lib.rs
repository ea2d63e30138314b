//! Criteria, planner and pruning methods.
