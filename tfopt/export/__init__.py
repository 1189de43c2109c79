"""Exporters: a Keras model becomes a verified artifact."""
