"""An int8 CNN on 64-bit ARM: the bytes that it gives there are those it gives here. Needs apt-get and the network."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_digits

import tfopt
from tfopt.quantization.spec import ActivationGrid

pytestmark = [
    pytest.mark.arm,
    pytest.mark.skipif(sys.platform != "linux", reason="qemu's user emulation runs on Linux"),
    pytest.mark.skipif(platform.machine() == "aarch64", reason="this machine is ARM itself: nothing to emulate"),
]

HERE = Path(__file__).parent
UNAVAILABLE = 77  # of sysroot.sh
SAMPLES = 128
# Three sets of instructions, for each of which XNNPACK has kernels of its own: NEON alone, with dot products, and
# with int8 matrix products. Without SME, whose emulation in qemu 7.2 gives other numbers.
CPUS = ["cortex-a53", "cortex-a76", "max,sme=off"]


@pytest.fixture(scope="module")
def sysroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arm")
    requirements = [f"{name}=={version(name)}" for name in ("ai-edge-litert", "numpy")]
    command = [str(HERE / "sysroot.sh"), str(folder), sys.executable, *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode == UNAVAILABLE:
        pytest.skip(f"no ARM to emulate: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return folder


def digits() -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32), labels


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A trained CNN of the usual layers as an int8 file, and samples on its grid."""
    folder = tmp_path_factory.mktemp("exported")
    images, labels = digits()
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1))
    x = stem = layers.ReLU(6)(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(image)))
    x = layers.ReLU(6)(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x)))
    x = layers.Add()([layers.Conv2D(16, 1)(x), stem])
    x = layers.Concatenate()([layers.MaxPooling2D()(x), layers.AveragePooling2D(2)(x)])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(24, 3, activation="relu")(x))
    logits = layers.Dense(10, name="logits")(x)
    model = keras.Model(image, {"logits": logits, "scores": layers.Softmax(name="scores")(logits)})
    model.compile("adam", {"scores": "sparse_categorical_crossentropy"})
    model.fit(images[SAMPLES:], {"scores": labels[SAMPLES:]}, batch_size=32, epochs=10, verbose=0)
    artifact = tfopt.export_tflite(model, folder / "model.tflite", "int8", calibration=images[SAMPLES:][:200])
    assert artifact.verification["full_integer"]
    taken = artifact.inputs[0]
    assert taken.scale is not None
    assert taken.zero_point is not None
    samples = folder / "samples.npy"
    np.save(samples, ActivationGrid(taken.scale, taken.zero_point, 8).quantize(images[:SAMPLES]))
    return artifact.path, samples


def interpret(
    command: list[str], exported: tuple[Path, Path], answers: Path, **variables: str
) -> dict[str, np.ndarray]:
    done = subprocess.run(
        [*command, str(HERE / "interpret.py"), *map(str, exported), str(answers)],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    with np.load(answers) as file:
        return dict(file)


@pytest.fixture(scope="module")
def here(exported: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return interpret([sys.executable], exported, tmp_path_factory.mktemp("here") / "answers.npz")


@pytest.mark.parametrize("cpu", CPUS)
def test_an_int8_cnn_gives_the_same_bytes_on_arm(
    cpu: str, sysroot: Path, exported: tuple[Path, Path], here: dict[str, np.ndarray], tmp_path: Path
) -> None:
    root = sysroot / "root"
    emulated = [str(sysroot / "qemu-aarch64"), "-cpu", cpu, "-L", str(root), str(root / "usr/bin/python3")]
    arm = interpret(emulated, exported, tmp_path / "answers.npz", PYTHONPATH=str(sysroot / "wheels"))
    assert {array.shape for array in arm.values()} == {(SAMPLES, 10)}
    for exact in ("xnnpack logits", "reference logits", "reference scores"):
        np.testing.assert_array_equal(arm[exact], here[exact], err_msg=exact)
    # XNNPACK has no int8 softmax, and TFLite's own is another one on ARM.
    assert steps(arm["xnnpack scores"], here["xnnpack scores"]) <= 1
    # TFLite's own optimized kernels round what lies halfway by the processor's instructions, a step here and there,
    # and give the reference's answers on neither processor.
    for own in ("optimized logits", "optimized scores"):
        assert steps(arm[own], here[own]) <= 5
        assert np.mean(arm[own].argmax(-1) == here[own].argmax(-1)) >= 0.98


def steps(received: np.ndarray, expected: np.ndarray) -> int:
    return int(np.abs(received.astype(int) - expected.astype(int)).max())


def test_the_answers_are_those_of_a_trained_network(here: dict[str, np.ndarray]) -> None:
    labels = digits()[1][:SAMPLES]
    for kernels, answers in here.items():
        assert answers.dtype == np.int8
        assert len(np.unique(answers)) > 50, kernels
        assert np.mean(answers.argmax(-1) == labels) > 0.6, kernels
