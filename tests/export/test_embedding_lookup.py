"""Embeddings are as small as other weights where ai-edge-quantizer makes the file, and give what Keras gives."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tfopt.export.ai_edge import EMBEDDING_BITS
from tfopt.export.embedding_lookup import with_embedding_lookups
from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_file import TfliteFile, read_tflite
from tfopt.export.tflite_runtime import run_tflite

pytestmark = [
    pytest.mark.usefixtures("conversion_in_this_process"),
    pytest.mark.filterwarnings("ignore:export_tflite. weight_only_int4 is slow"),
]

TOKENS = np.random.default_rng(0).integers(0, 500, (24, 12)).astype(np.int32)


def text_model(width: int = 16) -> keras.Model:
    """A table that sequences and single tokens are looked up in."""
    sequence, one = keras.Input((12,), dtype="int32", name="tokens"), keras.Input((), dtype="int32", name="one")
    embedding = layers.Embedding(500, width, name="words")
    h = layers.Concatenate()([layers.GlobalAveragePooling1D()(embedding(sequence)), embedding(one)])
    return keras.Model({"tokens": sequence, "one": one}, layers.Dense(4, name="scores")(h))


def tables(file: TfliteFile) -> set[tuple[str, str, int]]:
    return {
        (operator.name, tensor.dtype, len(tensor.scales))
        for operator in file.operators
        for tensor in operator.inputs
        if tensor.constant is not None and tensor.static_shape[:1] == (500,)
    }


@pytest.mark.slow
@pytest.mark.parametrize("preset", EMBEDDING_BITS)
def test_tables_have_a_scale_for_each_row(preset: str, tmp_path: Path) -> None:
    samples = {"tokens": TOKENS, "one": TOKENS[:, 0]}
    artifact = export_tflite(
        text_model(), tmp_path / "model.tflite", preset, engine="ai-edge-quantizer", calibration=samples
    )
    file = read_tflite(artifact.path)
    bits = EMBEDDING_BITS[preset]
    assert tables(file) == {("EMBEDDING_LOOKUP", f"INT{bits}", 500)}
    assert artifact.verification["sqnr_db"] > (40 if bits == 8 else 15)
    assert artifact.size_bytes < 500 * (16 * bits // 8 + 12) + 8_000  # a row has a scale and a zero point, too
    lookups = [
        layers
        for operator, layers in zip(file.operators, artifact.layers, strict=True)
        if operator.name == "EMBEDDING_LOOKUP"
    ]
    assert lookups == [("words",), ("words",)]


@pytest.mark.slow
def test_rows_that_do_not_fill_bytes_stay_float(tmp_path: Path) -> None:
    samples = {"tokens": TOKENS, "one": TOKENS[:, 0]}
    artifact = export_tflite(text_model(width=17), tmp_path / "model.tflite", "weight_only_int4", calibration=samples)
    assert tables(read_tflite(artifact.path)) == {("GATHER", "FLOAT32", 0)}


def test_a_float_file_computes_the_same_with_lookups(tmp_path: Path) -> None:
    plain = export_tflite(text_model(), tmp_path / "plain.tflite", "none", verify=False)
    changed = tmp_path / "changed.tflite"
    changed.write_bytes(with_embedding_lookups(plain.path.read_bytes(), bits=8))
    assert tables(read_tflite(changed)) == {("EMBEDDING_LOOKUP", "FLOAT32", 0)}
    samples = {"tokens": TOKENS, "one": TOKENS[:, 0]}
    for xnnpack in (True, False):
        one, other = (run_tflite(path, samples, xnnpack=xnnpack) for path in (plain.path, changed))
        np.testing.assert_array_equal(one["scores"], other["scores"])


def test_a_file_without_embeddings_stays_as_it_is(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    content = export_tflite(model, tmp_path / "model.tflite", "none", verify=False).path.read_bytes()
    assert with_embedding_lookups(content, bits=8) is content
