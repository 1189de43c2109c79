import shutil

import numpy as np
import pytest

from tfopt.benchmark.saved_model import SavedModelRunner, model_files
from tfopt.errors import BenchmarkError


def test_predictions_are_those_of_keras(files):
    done = []
    runner = SavedModelRunner(files.saved_model)
    (outputs,) = runner.predict([files.x], done.append)
    np.testing.assert_allclose(outputs, files.probabilities, atol=1e-5)
    assert sum(done) == len(files.x)


def test_it_runs_at_tensorflows_own_threads_and_says_so(files):
    runner = SavedModelRunner(files.saved_model)
    calls = runner.timed_calls([files.x[:1]])
    assert list(calls) == [None]
    (output,) = calls[None]()
    np.testing.assert_allclose(output, files.probabilities[:1], atol=1e-5)
    assert runner.note == "in process, TF default threads"
    assert runner.peak_memory_bytes is None


def test_warm_up_requests_do_not_count_as_the_model(files, tmp_path):
    folder = tmp_path / "1"
    shutil.copytree(files.saved_model, folder)
    before = model_files(folder)
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"x" * 1000)
    (folder / "artifact.json").write_text("{}")
    assert model_files(folder) == before
    assert folder / "saved_model.pb" in before


def test_a_damaged_folder_is_refused_clearly(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"nonsense")
    with pytest.raises(BenchmarkError, match="expected a SavedModel that TensorFlow can load"):
        SavedModelRunner(tmp_path)
