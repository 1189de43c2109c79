"""Which weights to keep: the array maths of pruning."""
