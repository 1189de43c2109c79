"""check_serving_folder: TF Serving's rules on a folder that was edited by hand."""

import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from tfopt.errors import ConfigError
from tfopt.serving.batching import BatchingParameters
from tfopt.serving.folder import export_serving
from tfopt.serving.folder_check import check_serving_folder
from tfopt.serving.warmup import WARMUP_FILE, read_warmup_requests

SMALL = BatchingParameters(max_batch_size=4, allowed_batch_sizes=(1, 4), num_batch_threads=2, max_enqueued_batches=2)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1, name="score")])
    export_serving(model, folder, name="a", batching=SMALL, labels={"stable": 1})
    export_serving(model, folder, name="a", version=2, served_versions=2, labels={"canary": 2})
    export_serving(model, folder, name="b")
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "serving"))


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return apply


@pytest.mark.slow
def test_what_was_exported_is_right(exported: Path) -> None:
    checked = check_serving_folder(exported)
    assert [(one.model, one.version, one.is_served, one.labels) for one in checked.versions] == [
        ("a", 1, True, ("stable",)),
        ("a", 2, True, ("canary",)),
        ("b", 1, True, ()),
    ]
    assert [one.warmup_requests for one in checked.versions] == [2, 2, 2]
    assert checked.remarks == ()
    assert str(checked).splitlines()[1:3] == [
        "model  version  served  labels  warm-up requests  largest batch",
        "a            1  yes     stable                 2              4",
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (edit("models.config", "base_path", "base_pth"), r"models\.config:\d+:\d+: .*Did you mean base_path\?"),
        (
            edit("models.config", '"b"', '"a"'),
            r"models\.config: each model must be listed once\. Received: 'a' 2 times",
        ),
        (edit("models.config", '"/models/b"', '"models/b"'), r"base_path must be absolute.*Received: 'models/b'"),
        (
            edit("models.config", '"/models/b"', '"/models/c"'),
            r"'b' must have a version, such as .*c/1\. There is none",
        ),
        (edit("models.config", '"tensorflow"', '"torch"'), r"model_platform must be 'tensorflow'\. Received: 'torch'"),
        (edit("models.config", "num_versions: 2", "num_versions: 1"), r"label 'stable' of 'a' .*: \[2\]\. Received: 1"),
        (edit("batching_parameters.txt", "max_batch_size {", "max_batch_sz {"), r"\n- batching_parameters\.txt:1:1: "),
        (
            edit("batching_parameters.txt", "max_batch_size { value: 4 }", "max_batch_size { value: 5 }"),
            r"\n- batching_parameters\.txt: .*must increase and end with max_batch_size=5",
        ),
        (
            edit("a/1/batching_params.pbtxt", "allowed_batch_sizes: 4", "alowed_batch_sizes: 4"),
            r"\n- a/1/batching_params\.pbtxt:5:1: .*Did you mean allowed_batch_sizes\?",
        ),
        (
            lambda folder: (folder / "b/1/batching_params.pbtxt").write_text("max_batch_size { value: 2 }"),
            r"b/1: warm-up requests must have at most max_batch_size=2 samples, .*Received: 4",
        ),
        (edit("monitoring.config", "enable:", "enabled:"), r"monitoring\.config:2:3: .*Did you mean enable\?"),
        (
            edit("tensorflow_model_server.sh", "--enable_batching=true", "--enable_batching=false"),
            r"tensorflow_model_server\.sh: --batching_parameters_file needs --enable_batching=true",
        ),
        (
            edit("docker-compose.yaml", "--enable_batching=true", "--enable_baching=true"),
            r"docker-compose\.yaml: the server ignores the unknown flag --enable_baching\. Did you mean --enable_b",
        ),
        (
            edit("kubernetes.yaml", "        - --enable_batching=true\n", ""),
            r"kubernetes\.yaml: --batching_parameters_file needs",
        ),
        (edit("kubernetes.yaml", "kind: Service\n", "kind: [Service\n"), r"kubernetes\.yaml:\d+:\d+: "),
        (edit("tensorflow_model_server.sh", '"$@"', '"$@'), r"tensorflow_model_server\.sh: the shell cannot read"),
        (
            lambda folder: (folder / "monitoring.config").unlink(),
            r"docker-compose\.yaml: --monitoring_config_file=/models/monitoring\.config must be a file of this folder",
        ),
        (lambda folder: (folder / "b/1/saved_model.pb").unlink(), r"b/1: there must be a saved_model\.pb"),
        (
            lambda folder: (folder / "b/1/assets.extra/tf_serving_warmup_requests").write_bytes(
                b"this is no TFRecord at all"
            ),
            r"b/1/assets\.extra/tf_serving_warmup_requests cannot be read",
        ),
    ],
)
def test_what_the_server_would_refuse_or_ignore_is_told(folder: Path, change: Callable, told: str) -> None:
    change(folder)
    with pytest.raises(ConfigError, match=told):
        check_serving_folder(folder, replay=False)


def test_all_problems_are_told_at_once(folder: Path) -> None:
    edit("models.config", '"/models/b"', '"models/b"')(folder)
    edit("monitoring.config", "enable:", "enabled:")(folder)
    edit("batching_parameters.txt", "max_batch_size {", "max_batch_sz {")(folder)
    with pytest.raises(ConfigError) as raised:
        check_serving_folder(folder, replay=False)
    assert str(raised.value).count("\n- ") == 3


def test_warm_up_requests_that_do_not_run_are_found_by_running_them(folder: Path) -> None:
    requests = list(read_warmup_requests(folder / "b/1"))
    with tf.io.TFRecordWriter(str(folder / "b/1" / WARMUP_FILE)) as writer:
        for request in requests:
            request.model_spec.signature_name = "serving_bytes"
            writer.write(PredictionLog(predict_log=PredictLog(request=request)).SerializeToString())
    assert len(check_serving_folder(folder, replay=False).versions) == 3
    with pytest.raises(ConfigError, match=r"request 1 of .*b/1 does not run, so TF Serving would not load"):
        check_serving_folder(folder)


def test_what_may_not_be_meant_is_remarked(folder: Path) -> None:
    (folder / "a" / "final").mkdir()
    (folder / "a/2/batching_params.pbtxt").unlink()
    with (folder / "b/1/batching_params.pbtxt").open("a") as file:
        file.write("num_batch_threads { value: 64 }\n")
    edit("a/1/batching_params.pbtxt", "allowed_batch_sizes: 1\n", "allowed_batch_sizes: 1\nallowed_batch_sizes: 2\n")(
        folder
    )
    told = check_serving_folder(folder, replay=False).remarks
    assert told == (
        "a/final is no version: TF Serving loads folders whose name is a number",
        "a/1: no warm-up request of 2 samples; the first such batch is slow",
        "a/2 is not batched: it has no batching_params.pbtxt, which the server looks for",
        "b/1/batching_params.pbtxt: the server ignores num_batch_threads here; it is that of all models, in "
        "batching_parameters.txt",
    )


def test_sizes_of_split_batches_that_only_some_servers_take_are_remarked(folder: Path) -> None:
    split = BatchingParameters(
        max_batch_size=16, enable_large_batch_splitting=True, max_execution_batch_size=4, allowed_batch_sizes=(1, 4)
    )
    (folder / "b/1/batching_params.pbtxt").write_text(split.to_text(thread_pool=False))
    (told,) = check_serving_folder(folder, replay=False).remarks
    assert told.startswith(
        "b/1: tensorflow_model_server may refuse allowed_batch_sizes that end below max_batch_size=16"
    )


def test_files_that_the_user_removed_or_wrote_otherwise_are_no_problem(folder: Path) -> None:
    (folder / "kubernetes.yaml").unlink()
    (folder / "docker-compose.yaml").write_text(
        "services:\n  web:\n    image: nginx\n    command: nginx -g 'daemon off;'\n  served:\n    command: "
        "--model_config_file=/models/models.config --monitoring_config_file=/etc/other.config\n"
    )
    (folder / "tensorflow_model_server.sh").write_text("# nothing here\n")
    assert len(check_serving_folder(folder, replay=False).versions) == 3


def test_what_is_no_serving_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a folder with a models\.config"):
        check_serving_folder(tmp_path)
