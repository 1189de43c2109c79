"""What `tfopt.optimize` is made of: the budget, the targets, the trials, the ladder of what is tried, the result."""
