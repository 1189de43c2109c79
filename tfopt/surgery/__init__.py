"""Keras graph to Keras graph: select layers, read and rebuild a model with changes."""
