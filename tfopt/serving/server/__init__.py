"""A local server that behaves like TF Serving: models, batches, REST, gRPC and a cache."""
