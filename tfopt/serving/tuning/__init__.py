"""Batching parameters found by measuring."""
