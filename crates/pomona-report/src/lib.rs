//! Terminal tables and JSON of what was measured.
