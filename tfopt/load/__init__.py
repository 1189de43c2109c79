"""Load on a model server, from processes of its own: TF Serving's REST and gRPC, and what they say of themselves.

`tfopt.load.measurement.measure_load` is the way in.
"""
