"""Models of tf_keras and tensorflow-model-optimization, in and out."""
