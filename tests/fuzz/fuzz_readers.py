"""The readers of files that tfopt has, each with files that it accepts."""

from __future__ import annotations

import hashlib
import io
import tempfile
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from fuzz_mutations import mutated_archive, mutated_bytes, mutated_text

__all__ = ["READERS", "FileReader", "mutation", "write_samples"]

GOLDEN = Path(__file__).parents[1] / "golden" / "networks.tflite"


@dataclass(frozen=True)
class FileReader:
    """One of tfopt's readers.

    Args:
        name: of the file that is read, whose suffix may decide who reads it.
        samples: gives the contents of at least two files that it accepts.
        mutate: makes a damaged one of two.
        read: what tfopt does with the path of such a file.
    """

    name: str
    samples: Callable[[], list[bytes]]
    mutate: Callable[[bytes, bytes, Random], bytes]
    read: Callable[[Path], object]


def write_samples(reader: str, folder: Path) -> list[bytes]:
    """The samples of a reader, made once and kept in a folder: making some takes TensorFlow."""
    kept = folder / reader
    if not kept.exists():
        contents = READERS[reader].samples()
        kept.mkdir(parents=True)
        for index, content in enumerate(contents):
            (kept / str(index)).write_bytes(content)
    return [path.read_bytes() for path in sorted(kept.iterdir())]


def mutation(reader: str, samples: list[bytes], index: int) -> bytes:
    """The damaged file of a number; always the same one."""
    random = Random(f"{reader} {index}")
    return READERS[reader].mutate(random.choice(samples), random.choice(samples), random)


def _text_samples(*texts: str) -> Callable[[], list[bytes]]:
    return lambda: [text.encode() for text in texts]


def _read_recipe(path: Path) -> object:
    from tfopt.recipe import Recipe

    return Recipe.load(path)


def _read_batching(path: Path) -> object:
    from tfopt.serving.server_files import present_batching

    return present_batching(path.parent)


def _read_models(path: Path) -> object:
    from tfopt.serving.server.wanted_versions import folder_config

    return folder_config(path)


def _npz_samples() -> list[bytes]:
    import numpy as np

    contents = []
    for dtype, save in ((np.float32, np.savez), (np.uint8, np.savez_compressed), (np.int64, np.savez_compressed)):
        file = io.BytesIO()
        x = np.arange(60).reshape(10, 2, 3).astype(dtype)
        save(file, x_train=x, y_train=np.arange(10), x_test=x[:4], y_test=np.arange(4.0))
        contents.append(file.getvalue())
    return contents


def _read_npz(path: Path) -> object:
    from tfopt.data import load_npz

    return load_npz(path)


def _tflite_samples() -> list[bytes]:
    """Three int8 networks in one, the same with labels, and a float one whose kernel is sparse."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tfopt.export.task_metadata_file import add_metadata
    from tfopt.export.task_metadata_schema import ModelDescription, TensorDescription
    from tfopt.export.tflite_file import read_tflite

    file = read_tflite(GOLDEN)
    inputs = [TensorDescription(name, 3, (127.5,), (127.5,)) for name in file.inputs]
    outputs = [TensorDescription(name, label_file=f"{name}.txt") for name in file.outputs]
    labels = {f"{name}.txt": b"ant\nbee\ncat\ndog\neel" for name in file.outputs}
    described = ModelDescription({"name": "networks", "author": "somebody"}, tuple(inputs), tuple(outputs))
    dense = keras.layers.Dense(8)
    model = keras.Sequential([keras.Input((16,), batch_size=1, name="x"), dense])
    dense.set_weights([np.eye(16, 8, dtype=np.float32), np.zeros(8)])
    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
        sparse = converter.convert()
    return [GOLDEN.read_bytes(), add_metadata(GOLDEN.read_bytes(), described, labels), sparse]


def _mutated_tflite(content: bytes, other: bytes, random: Random) -> bytes:
    """The mark at its begin is kept, without which nothing else is looked at."""
    changed = mutated_bytes(content, other, random)
    return changed if random.random() < 0.1 else changed[:4] + b"TFL3" + changed[8:]


def _inspect(path: Path) -> object:
    from tfopt.inspection import inspect

    return str(inspect(path, target="tflite"))


def _run_tflite(path: Path) -> object:
    from tfopt.benchmark.candidates import Candidate
    from tfopt.benchmark.loading import load_runner
    from tfopt.benchmark.runner import random_samples

    runner = load_runner(Candidate("model", path, "tflite", None), (1,), target="edge_tpu")
    samples = random_samples(runner.inputs)
    runner.timed_calls(samples)
    return runner.predict(samples, [].append), runner.arena_bytes


def _predict_edge_tpu(path: Path) -> object:
    from tfopt.export.edge_tpu import predict

    return str(predict(path))


def _keras_models() -> Sequence[Any]:
    import keras
    import numpy as np
    from keras import layers

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(2, 3, activation="relu")(layers.Rescaling(1 / 255)(image))
    convolution = keras.Model(image, layers.Dense(3, "softmax")(layers.Flatten()(layers.BatchNormalization()(x))))
    lookup = layers.StringLookup(vocabulary=["ant", "bee"], output_mode="multi_hot")
    text = keras.Sequential([keras.Input((2,), dtype="string"), lookup, layers.Dense(2)])
    normalization = layers.Normalization()
    normalization.adapt(np.arange(12.0).reshape(3, 4))
    dense = keras.Sequential([keras.Input((4,)), normalization, layers.Dense(3, "relu"), layers.Dense(2)])
    dense.compile("adam", "mse")
    return convolution, text, dense


def _saved(models: Sequence[Any], suffix: str) -> list[bytes]:
    contents = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model in models:
            path = Path(folder, f"model{suffix}")
            model.save(path)
            contents.append(path.read_bytes())
    return contents


def _load_model(path: Path) -> object:
    from tfopt.model_file import load_model

    return load_model(path)


def _coded_samples() -> list[bytes]:
    from tfopt.compression.checkpoint import save_coded

    with tempfile.TemporaryDirectory() as folder:
        return [save_coded(model, Path(folder, "model.coded")).path.read_bytes() for model in _keras_models()]


def _mutated_coded(content: bytes, other: bytes, random: Random) -> bytes:
    """With the digest of what was made of it, or no change would come further."""
    length = int.from_bytes(content[42:46], "little")
    header, parts = zlib.decompress(content[46 : 46 + length]), content[46 + length :]
    if random.random() < 0.5:
        header = mutated_text(header, header, random)
    else:
        parts = mutated_bytes(parts, other[46:], random)
    packed = zlib.compress(header)
    body = len(packed).to_bytes(4, "little") + packed + parts
    return content[:10] + hashlib.sha256(body).digest() + body


def _load_coded(path: Path) -> object:
    from tfopt.compression.checkpoint import load_coded

    return load_coded(path)


def _tf_keras_samples(suffix: str) -> list[bytes]:
    from tfopt.interop.legacy import import_tf_keras

    layers = import_tf_keras().layers
    dense = [layers.Input((4,)), layers.Dense(3, "relu"), layers.Dense(2)]
    image = [layers.Input((6, 6, 1)), layers.DepthwiseConv2D(3), layers.BatchNormalization(), layers.Flatten()]
    return _saved([import_tf_keras().Sequential(parts) for parts in (dense, image)], suffix)


def _load_tf_keras(path: Path) -> object:
    from tfopt.interop.migration_file import load_tf_keras

    return load_tf_keras(path)


def _onnx_samples() -> list[bytes]:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy")
    kernel = numpy_helper.from_array(np.eye(3, dtype=np.float32), "kernel")
    nodes = [
        helper.make_node("MatMul", ["x", "kernel"], ["product"], name="layer/MatMul"),
        helper.make_node("Constant", [], ["most"], value=numpy_helper.from_array(np.float32(6))),
        helper.make_node("Clip", ["product", "", "most"], ["y"], name="layer/Clip"),
    ]
    whole = helper.make_graph(nodes, "graph", [x], [y], [kernel])
    bare = helper.make_graph(nodes[:1], "graph", [x], [helper.make_tensor_value_info("product", 1, None)], [kernel])
    opset = [helper.make_opsetid("", 15)]
    return [helper.make_model(graph, opset_imports=opset).SerializeToString() for graph in (whole, bare)]


def _report_samples() -> list[bytes]:
    from tfopt.benchmark.machine import this_machine
    from tfopt.benchmark.measurements import Entry
    from tfopt.benchmark.report import Report

    entries = [Entry(name=name, path="m.tflite", kind="tflite", size_bytes=2048, gzip_bytes=900) for name in "ab"]
    reports = [Report(title="Digits", machine=this_machine(), entries=tuple(entries[:count])) for count in (1, 2)]
    return [report.model_dump_json(indent=1).encode() for report in reports]


def _load_report(path: Path) -> object:
    from tfopt.benchmark.report import Report

    return str(Report.load(path))


def _record_samples() -> list[bytes]:
    from tfopt.artifact import Artifact, TensorSpec

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(b"")
        specs = [(), (TensorSpec(name="x", shape=(None, 3), dtype="int8", scale=0.5, zero_point=-3),)]
        return [Artifact.of(path, kind="onnx", inputs=spec, outputs=spec).to_record().encode() for spec in specs]


def _load_record(path: Path) -> object:
    from tfopt.artifact import Artifact

    model = path.with_name("model.onnx")
    model.write_bytes(b"")
    return str(Artifact.load(model))


def _staged_samples() -> list[bytes]:
    from tfopt.artifact import TensorSpec
    from tfopt.early_exit.policy import ExitPolicy
    from tfopt.early_exit.staged_file import StagedFile, StageRecord

    spec = TensorSpec(name="x", shape=(1, 3), dtype="float32")
    stages = tuple(StageRecord(name, ("x",), ("y",), (spec,), (spec,)) for name in ("stage_0", "stage_1"))
    policies = [ExitPolicy(("early", "late"), (threshold,)) for threshold in (0.9, 0.5)]
    return [StagedFile(policy, stages).to_json().encode() for policy in policies]


def _load_staged(path: Path) -> object:
    from tfopt.early_exit.staged_file import StagedFile

    return StagedFile.load(path.with_name("model.tflite"))


def _serving_file(path: Path) -> object:
    from tfopt.serving.command_check import check_commands

    return check_commands(path.parent)


def _deployment_samples(name: str) -> Callable[[], list[bytes]]:
    def samples() -> list[bytes]:
        from tfopt.serving.deployment import deployment_files

        return [deployment_files(base, model="digits", cpus=2)[name].encode() for base in ("/models", "/srv/served")]

    return samples


def _warmup_samples() -> list[bytes]:
    import numpy as np

    from tfopt.artifact import TensorSpec
    from tfopt.serving.warmup import WarmupSignature, write_warmup_requests

    spec = TensorSpec(name="x", shape=(None, 2), dtype="float32")
    contents = []
    with tempfile.TemporaryDirectory() as folder:
        for samples in ({}, {"x": np.ones((1, 2), np.float32)}):
            signatures = [WarmupSignature("serving_default", [spec], samples)]
            path = write_warmup_requests(folder, model="digits", signatures=signatures, batch_sizes=(1, 8))
            contents.append(path.read_bytes())
    return contents


def _read_warmup(path: Path) -> object:
    from tfopt.serving.batching import BatchingParameters
    from tfopt.serving.version_check import check_version
    from tfopt.serving.warmup import WARMUP_FILE

    version = path.parent / "1"
    (version / WARMUP_FILE).parent.mkdir(parents=True, exist_ok=True)
    (version / "saved_model.pb").touch()
    path.rename(version / WARMUP_FILE)
    return check_version(
        version,
        model="digits",
        is_served=True,
        labels=(),
        server=BatchingParameters(),
        per_model=False,
        replay=False,
    )


READERS: dict[str, FileReader] = {
    "recipe": FileReader(
        "recipe.yaml",
        _text_samples(
            "quantization: int8\nfine_tuning:\n  epochs: 2\n  learning_rate: 0.0001\n  batch_size: 64\n"
            "calibration_samples: 256\n",
            '{"quantization": "float16", "fine_tuning": null, "calibration_samples": 16}\n',
            "# what was chosen\nquantization: 'int16x8'\nfine_tuning: {epochs: 1}\n",
        ),
        mutated_text,
        _read_recipe,
    ),
    "batching": FileReader(
        "batching_parameters.txt",
        _text_samples(
            "max_batch_size { value: 32 }\nbatch_timeout_micros { value: 1000 }\nmax_enqueued_batches { value: 4 }\n"
            "num_batch_threads { value: 2 }\nallowed_batch_sizes: 8\nallowed_batch_sizes: 32\n",
            '# measured\nmax_batch_size { value: 128 }\nthread_pool_name { value: "pool" }\n'
            "enable_large_batch_splitting { value: true }\nmax_execution_batch_size { value: 16 }\n"
            "allowed_batch_sizes: [4, 16]\npad_variable_length_inputs: true\n",
        ),
        mutated_text,
        _read_batching,
    ),
    "models_config": FileReader(
        "models.config",
        _text_samples(
            'model_config_list {\n  config {\n    name: "digits"\n    base_path: "/models/digits"\n'
            '    model_platform: "tensorflow"\n    model_version_policy {\n      latest {\n        num_versions: 2\n'
            '      }\n    }\n    version_labels {\n      key: "stable"\n      value: 1\n    }\n  }\n}\n',
            'model_config_list: { config: { name: "a" base_path: "s3://b/a" model_platform: "tensorflow"\n'
            "model_version_policy { specific { versions: 1 versions: 7 } } } }\n",
        ),
        mutated_text,
        _read_models,
    ),
    "monitoring": FileReader(
        "monitoring.config",
        _text_samples(
            'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n',
            "# none\nprometheus_config: <\n  enable: false\n>\n",
        ),
        mutated_text,
        _serving_file,
    ),
    "compose": FileReader(
        "docker-compose.yaml", _deployment_samples("docker-compose.yaml"), mutated_text, _serving_file
    ),
    "kubernetes": FileReader("kubernetes.yaml", _deployment_samples("kubernetes.yaml"), mutated_text, _serving_file),
    "npz": FileReader("data.npz", _npz_samples, mutated_archive, _read_npz),
    "tflite_inspected": FileReader("model.tflite", _tflite_samples, _mutated_tflite, _inspect),
    "tflite_predicted": FileReader("model.tflite", _tflite_samples, _mutated_tflite, _predict_edge_tpu),
    "tflite_run": FileReader("model.tflite", _tflite_samples, _mutated_tflite, _run_tflite),
    "keras": FileReader("model.keras", lambda: _saved(_keras_models(), ".keras"), mutated_archive, _load_model),
    "h5": FileReader("model.h5", lambda: _saved(_keras_models(), ".h5"), mutated_bytes, _load_model),
    "coded": FileReader("model.coded", _coded_samples, _mutated_coded, _load_coded),
    "tf_keras": FileReader("model.keras", lambda: _tf_keras_samples(".keras"), mutated_archive, _load_tf_keras),
    "tf_keras_h5": FileReader("model.h5", lambda: _tf_keras_samples(".h5"), mutated_bytes, _load_tf_keras),
    "onnx": FileReader("model.onnx", _onnx_samples, mutated_bytes, _inspect),
    "report": FileReader("report.json", _report_samples, mutated_text, _load_report),
    "record": FileReader("model.artifact.json", _record_samples, mutated_text, _load_record),
    "staged": FileReader("model.exits.json", _staged_samples, mutated_text, _load_staged),
    "warmup": FileReader("tf_serving_warmup_requests", _warmup_samples, mutated_bytes, _read_warmup),
}
