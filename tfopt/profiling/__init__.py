"""What a training wastes: batch sizes, data types and operations, measured in a few steps that leave no trace."""
