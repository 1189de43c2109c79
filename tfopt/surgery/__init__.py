"""Keras graph to Keras graph: read a model, select its layers, build it again with changes."""
