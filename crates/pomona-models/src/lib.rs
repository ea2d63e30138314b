//! Importers and exporters between model files and graphs.
