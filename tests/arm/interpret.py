"""Runs a .tflite on samples with each set of kernels: `python interpret.py MODEL.tflite SAMPLES.npy ANSWERS.npz`.

Of the tests' modules this alone runs on the emulated machine, so it needs NumPy and the TFLite runtime only.
"""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

KERNELS = {
    "xnnpack": OpResolverType.AUTO,
    "optimized": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


def answers(path: str, samples: np.ndarray, resolver: OpResolverType) -> dict[str, np.ndarray]:
    runner = Interpreter(path, experimental_op_resolver_type=resolver, num_threads=1).get_signature_runner()
    (taken,) = runner.get_input_details()
    rows = [runner(**{taken: samples[row : row + 1]}) for row in range(len(samples))]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


if __name__ == "__main__":
    model, given, written = sys.argv[1:]
    found = {
        f"{kernels} {name}": array
        for kernels, resolver in KERNELS.items()
        for name, array in answers(model, np.load(given), resolver).items()
    }
    np.savez(written, **found)
