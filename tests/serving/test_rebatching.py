"""set_batching: other parameters for a version that is there, and a folder that is as right as before."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.artifact import Artifact
from tfopt.errors import ConfigError, DataError
from tfopt.export.image_bytes import ImageBytes
from tfopt.serving.batching import BatchingParameters
from tfopt.serving.folder import export_serving
from tfopt.serving.folder_check import check_serving_folder
from tfopt.serving.rebatching import set_batching
from tfopt.serving.warmup import WARMUP_FILE, read_warmup_requests

SMALL = BatchingParameters(max_batch_size=4, allowed_batch_sizes=(1, 4), num_batch_threads=2, max_enqueued_batches=2)


@pytest.fixture
def version(tmp_path: Path) -> Path:
    model = keras.Sequential([keras.Input((4, 4, 1), name="image"), keras.layers.Flatten(), keras.layers.Dense(1)])
    data = np.arange(3 * 16, dtype=np.float32).reshape(3, 4, 4, 1) / 48
    return export_serving(model, tmp_path, name="m", batching=SMALL, data=data, image_bytes=ImageBytes()).path


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(2,), (1, 2, 8), (4,)])
def test_the_folder_is_as_if_exported_so(version: Path, sizes: tuple[int, ...]) -> None:
    wanted = BatchingParameters(max_batch_size=sizes[-1], allowed_batch_sizes=sizes, num_batch_threads=3)
    before = list(read_warmup_requests(version))
    artifact = set_batching(version, wanted, comments=["measured on this"])
    assert Artifact.load(version) == artifact
    (checked,) = check_serving_folder(version.parent.parent).versions
    assert checked.warmup_requests == artifact.verification["warmup_requests"] == 2 * len(sizes)
    assert checked.remarks == ()
    assert checked.batching.allowed_batch_sizes == sizes
    after = list(read_warmup_requests(version))
    assert [request.model_spec.signature_name for request in after] == [
        name for name in ("serving_default", "serving_bytes") for _ in sizes
    ]
    images = tf.make_ndarray(after[len(sizes) - 1].inputs["image"])
    np.testing.assert_array_equal(images[:1], tf.make_ndarray(before[0].inputs["image"]))
    assert images.shape == (sizes[-1], 4, 4, 1)
    for text in (version / "batching_params.pbtxt", version.parent.parent / "batching_parameters.txt"):
        assert text.read_text().startswith("# measured on this\n")
    server = BatchingParameters.from_text((version.parent.parent / "batching_parameters.txt").read_text())
    assert server == wanted


@pytest.mark.slow
def test_the_server_keeps_the_sizes_that_other_versions_need(version: Path) -> None:
    model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1)])
    export_serving(model, version.parent.parent, name="other")
    set_batching(version, BatchingParameters(max_batch_size=2, allowed_batch_sizes=(2,), num_batch_threads=3))
    server = BatchingParameters.from_text((version.parent.parent / "batching_parameters.txt").read_text())
    assert (server.allowed_batch_sizes, server.num_batch_threads) == ((1, 4), 3)
    assert len(check_serving_folder(version.parent.parent).versions) == 2


def test_what_has_changed_or_has_no_samples_is_refused(version: Path) -> None:
    text = (version / "batching_params.pbtxt").read_text()
    (version / "batching_params.pbtxt").write_text(text + "# edited\n")
    with pytest.raises(DataError, match="has changed since"):
        set_batching(version, SMALL)
    (version / "batching_params.pbtxt").write_text(text)
    (version / WARMUP_FILE).unlink()
    record = version / "artifact.json"
    record.write_text(Artifact.of(version, kind="saved_model", inputs=(), outputs=()).to_record())
    with pytest.raises(ConfigError, match=r"expected warm-up requests in .* There are none"):
        set_batching(version, SMALL)
    assert (version / "batching_params.pbtxt").read_text() == text
