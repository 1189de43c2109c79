"""A script: how far the memory of a fresh process grows by loading and running one .tflite or .onnx file.

It is run as a file, in a process of its own: `python -P peak_memory.py MODEL.tflite [--no-xnnpack]`. It answers with
one line of JSON: `{"peak_memory_bytes": N}`, N being null where the system does not tell, or `{"error": TEXT}`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

NO_XNNPACK = "--no-xnnpack"
STATUS = Path("/proc/self/status")


def resident_bytes() -> int | None:
    """Memory of this process now, or its peak where only that is known; None where nothing is."""
    return _status_bytes("VmRSS:") if STATUS.exists() else _ru_maxrss_bytes()


def peak_bytes() -> int | None:
    """The peak since `forget_peak`."""
    # Not ru_maxrss on Linux: a process inherits it from the one that started it, so that a child of a
    # process as large as TensorFlow would show no growth at all.
    return _status_bytes("VmHWM:") if STATUS.exists() else _ru_maxrss_bytes()


def forget_peak() -> None:
    """Lets the peak begin anew at the present state, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _status_bytes(field: str) -> int | None:
    for line in STATUS.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return None


def _ru_maxrss_bytes() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(path: str, *, xnnpack: bool = True) -> dict[str, int | str | None]:
    """Loads the file with one thread, runs it twice on zeros, and tells the growth."""
    load_and_run = _onnx(path) if path.endswith(".onnx") else _tflite(path, xnnpack=xnnpack)
    forget_peak()
    before = resident_bytes()
    try:
        load_and_run()
    except Exception as error:  # ONNX Runtime has a dozen of its own
        return {"error": " ".join(str(error).split()) or type(error).__name__}
    after = peak_bytes()
    if xnnpack and not path.endswith(".onnx"):
        # What is measured of the file later runs TFLite's own kernels in the user's process.
        with suppress(Exception):
            _tflite(path, xnnpack=False)()
    return {"peak_memory_bytes": None if before is None or after is None else max(after - before, 0)}


def _tflite(path: str, *, xnnpack: bool) -> Callable[[], None]:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES

    def load_and_run() -> None:
        interpreter = Interpreter(model_path=path, num_threads=1, experimental_op_resolver_type=resolver)
        interpreter.allocate_tensors()
        for given in interpreter.get_input_details():
            # What the memory held before may be tokens that an embedding does not have.
            interpreter.set_tensor(given["index"], np.zeros(given["shape"], given["dtype"]))
        for _ in range(2):
            interpreter.invoke()

    return load_and_run


def _onnx(path: str) -> Callable[[], None]:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what fails is told by an exception

    def load_and_run() -> None:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = {"float": "float32", "double": "float64"}
        feeds = {}
        for given in session.get_inputs():
            kind = given.type.removeprefix("tensor(").removesuffix(")")
            shape = [size if isinstance(size, int) else 1 for size in given.shape]
            feeds[given.name] = np.zeros(shape, names.get(kind, kind))
        for _ in range(2):
            session.run(None, feeds)

    return load_and_run


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], xnnpack=NO_XNNPACK not in sys.argv[2:])))
