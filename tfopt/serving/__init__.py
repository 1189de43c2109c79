"""TF Serving: the folder it loads, its batching parameters and its warm-up requests."""
