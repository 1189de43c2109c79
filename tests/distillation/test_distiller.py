"""The Distiller in `fit`: what it minimizes, and each defect of keras.distillation.Distiller that it must not have."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt.callbacks import MagnitudePruning, QuantizationSchedule
from tfopt.distillation import (
    AngleLoss,
    AttentionLoss,
    DecoupledLoss,
    DistanceLoss,
    DistillationLoss,
    Distiller,
    FeatureLoss,
    LogitsLoss,
)
from tfopt.errors import ConfigError, ModelError

pytestmark = pytest.mark.slow

L = keras.layers
rng = np.random.default_rng(0)
X = rng.normal(size=(32, 6, 6, 1)).astype(np.float32)
Y = np.arange(32) % 3
WEIGHTS = rng.uniform(0.1, 3, size=32).astype(np.float32)


def network(channels=3, *, seed=0, softmax=False, dropout=0.0, penalty=None, strides=1):
    keras.utils.set_random_seed(seed)
    body = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            L.Conv2D(channels, 3, strides=strides, activation="relu", name="conv"),
            L.BatchNormalization(name="norm"),
        ],
        name="body",
    )
    x = keras.Input((6, 6, 1))
    y = L.GlobalAveragePooling2D(name="pool")(body(x))
    y = L.Dropout(dropout)(y)
    head = L.Dense(3, "softmax" if softmax else None, kernel_regularizer=penalty, name="head")
    return keras.Model(x, head(y))


def compiled(student, teacher, losses=None, rate=0.1, metrics=None, from_logits=True, **options):
    distiller = Distiller(student, teacher, losses, **options)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    distiller.compile(keras.optimizers.SGD(rate), loss, metrics=metrics)
    return distiller


def all_losses():
    return [
        LogitsLoss(),
        DecoupledLoss(),
        FeatureLoss("body/conv", "body/conv"),
        AttentionLoss("body", "body/norm"),
        DistanceLoss("pool", "pool"),
        AngleLoss("pool", "pool"),
    ]


def equal_weights(first, second, tolerance=0.0):
    pairs = zip(first.get_weights(), second.get_weights(), strict=True)
    return all(np.allclose(*pair, rtol=0, atol=tolerance) for pair in pairs)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    student, teacher = network(penalty="l2"), network(5, seed=1)
    distiller = compiled(student, teacher, all_losses(), loss_weights={"student": 0.5, "decoupled": 0.25, "angle": 2})
    logs = distiller.train_on_batch(X, Y, sample_weight=WEIGHTS, return_dict=True)
    assert distiller.loss_weights["angle"] == 2
    penalty = float(sum(network(penalty="l2").losses))
    parts = sum(weight * logs[f"{name}_loss"] for name, weight in distiller.loss_weights.items())
    assert len(distiller.loss_weights) == 7
    assert np.isclose(logs["loss"], parts + penalty, rtol=1e-5)
    assert all(logs[f"{name}_loss"] > 0 for name in distiller.loss_weights)


def test_with_labels_alone_the_student_learns_as_without_a_teacher():
    alone = network(penalty="l2")
    alone.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    distiller = compiled(
        network(penalty="l2"),
        network(5, seed=1),
        all_losses(),
        loss_weights=dict.fromkeys(("logits", "decoupled", "feature", "attention", "distance", "angle"), 0),
    )
    for model in (alone, distiller):
        model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0, sample_weight=WEIGHTS)
    assert equal_weights(alone, distiller.student, 1e-6)


def test_gradients_are_those_of_the_sum_written_out():
    student, teacher = network(), network(5, seed=1)
    distiller = compiled(student, teacher)
    twin = network()
    with tf.GradientTape() as tape:
        logits = twin(X, training=True)
        hard = keras.losses.sparse_categorical_crossentropy(Y, logits, from_logits=True)
        soft = LogitsLoss().call(teacher(X, training=False), logits)
        value = tf.reduce_mean((hard + soft) * WEIGHTS)
    for variable, gradient in zip(
        twin.trainable_variables, tape.gradient(value, twin.trainable_variables), strict=True
    ):
        variable.assign_sub(0.1 * gradient)
    distiller.train_on_batch(X, Y, sample_weight=WEIGHTS)
    assert equal_weights(twin, student, 1e-6)


# Keras 3.15 drops penalties.
def test_penalties_are_minimized():
    strong = compiled(network(penalty=keras.regularizers.L2(1.0)), network(5, seed=1))
    strong.fit(X, Y, epochs=5, verbose=0)
    without = compiled(network(), network(5, seed=1))
    without.fit(X, Y, epochs=5, verbose=0)
    size = [np.abs(model.student.get_layer("head").kernel).sum() for model in (strong, without)]
    assert size[0] < 0.5 * size[1]


class AddsLoss(L.Layer):
    def call(self, x):
        self.add_loss(7.0 + 0.0 * keras.ops.sum(x))
        return x


@pytest.mark.parametrize("losses", [None, [FeatureLoss("adds", "body/conv")]])
def test_losses_that_layers_add_count_once(losses):
    x = keras.Input((6, 6, 1))
    student = keras.Model(x, L.Dense(3)(L.Flatten()(AddsLoss(name="adds")(x))))
    losses = losses and [FeatureLoss("adds", "body/conv")]
    distiller = compiled(student, network(5, strides=2), losses, loss_weights={"student": 0.0})
    logs = distiller.train_on_batch(X, Y, return_dict=True)
    name = "feature_loss" if losses else "logits_loss"
    assert np.isclose(logs["loss"] - logs[name], 7, atol=1e-3)


# Keras 3.15 leaves sample weights out.
@pytest.mark.parametrize("index", range(4))  # not relations: there a sample is what others are compared with
def test_samples_of_weight_0_do_not_count(index):
    kept = np.arange(32) < 16
    other = X.copy()
    other[~kept] = 9 * rng.normal(size=other[~kept].shape)
    loss = all_losses()[index]
    results = []
    for x in (X, other):
        student = network()
        student.get_layer("body").get_layer("norm").trainable = False  # it would mix the samples
        distiller = compiled(student, network(5, seed=1), all_losses()[index])
        logs = distiller.train_on_batch(x, Y, sample_weight=kept.astype(np.float32), return_dict=True)
        results.append((student, logs["loss"], logs[f"{loss.name}_loss"]))
    assert np.allclose(results[0][1:], results[1][1:], rtol=1e-4)
    assert equal_weights(results[0][0], results[1][0], 1e-5)


def test_class_weights_count():
    by_class, by_sample = (compiled(network(), network(5, seed=1)) for _ in range(2))
    by_class.fit(X, Y, verbose=0, shuffle=False, class_weight={0: 1.0, 1: 5.0, 2: 0.0})
    by_sample.fit(X, Y, verbose=0, shuffle=False, sample_weight=np.float32([1, 5, 0])[Y])
    assert equal_weights(by_class.student, by_sample.student, 1e-6)


# Keras 3.15 runs the student twice with feature losses.
@pytest.mark.parametrize("losses", [None, all_losses()], ids=["logits", "all"])
def test_a_step_runs_student_and_teacher_once(losses):
    student, teacher = network(), network(5, seed=1)
    runs = {"student": 0, "teacher": 0}

    def count(name, model):
        layer = model.get_layer("body").get_layer("conv")
        call = layer.call

        def counted(x, **kwargs):
            runs[name] += 1
            return call(x, **kwargs)

        layer.call = counted

    count("student", student)
    count("teacher", teacher)
    distiller = Distiller(student, teacher, losses)
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    distiller.train_on_batch(X, Y)
    assert runs == {"student": 1, "teacher": 1}
    distiller.test_on_batch(X, Y)
    assert runs == {"student": 2, "teacher": 1}


# Keras 3.15 changes batch norm statistics when it evaluates.
def test_evaluation_is_the_students_and_changes_nothing():
    student, teacher = network(dropout=0.5, penalty="l2"), network(5, seed=1)
    distiller = compiled(student, teacher, all_losses(), metrics=["accuracy"])
    distiller.fit(X, Y, verbose=0)
    before = [*student.get_weights(), *teacher.get_weights()]
    result = distiller.evaluate(X, Y, verbose=0, return_dict=True)
    predicted = distiller.predict(X, verbose=0)
    assert all(map(np.array_equal, before, [*student.get_weights(), *teacher.get_weights()]))
    student.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    expected = student.evaluate(X, Y, verbose=0, return_dict=True)
    assert result.keys() == expected.keys()
    assert all(np.isclose(result[name], expected[name], rtol=1e-5) for name in result)
    assert np.allclose(predicted, student.predict(X, verbose=0), atol=1e-6)
    history = distiller.fit(X, Y, verbose=0, validation_data=(X, Y)).history
    assert {name for name in history if name.startswith("val_")} == {"val_loss", "val_accuracy"}


# Keras 3.15 fails where a feature of the student has another shape than the teacher's.
@pytest.mark.parametrize("strides", [1, 2])
def test_a_projector_is_trained_where_shapes_differ(strides):
    student, teacher = network(3, strides=strides), network(5, seed=1)
    distiller = compiled(student, teacher, FeatureLoss("body/conv", "body/conv"), rate=0.05)
    (projector,) = distiller.projectors
    before = projector.get_weights()
    losses = distiller.fit(X, Y, epochs=10, verbose=0).history["feature_loss"]
    assert losses[-1] < 0.8 * losses[0]
    assert not np.allclose(before[0], projector.matrix)
    assert student.count_params() == network(3, strides=strides).count_params()


def test_equal_shapes_need_no_projector():
    distiller = compiled(network(3), network(3, seed=1), FeatureLoss("body/conv", "body/conv"))
    assert distiller.projectors == []


MIRRORED = textwrap.dedent("""
    import sys
    import keras, numpy as np, tensorflow as tf
    import tfopt
    from tfopt.distillation import *

    L = keras.layers
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(36, 4)).astype("float32"), np.arange(36) % 3
    weights = rng.uniform(size=36).astype("float32")

    def network(units, seed):
        keras.utils.set_random_seed(seed)
        hidden, head = L.Dense(units, "relu", name="hidden"), L.Dense(3, kernel_regularizer="l2")
        return keras.Sequential([keras.Input((4,)), hidden, head])

    def fitted(scope, **options):
        with scope:
            student = network(3, 1)
            # Dense features: what RKD compares are the samples of one replica, so it is not among them.
            losses = [LogitsLoss(), DecoupledLoss(), FeatureLoss("hidden", "hidden")]
            distiller = tfopt.Distiller(student, teacher, losses, **options)
            distiller.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        distiller.projectors[0].matrix.assign(np.ones((3, 5)) / 3)
        logs = distiller.fit(x, y, sample_weight=weights, batch_size=12, epochs=2, shuffle=False, verbose=0,
            validation_data=(x, y)).history
        return student, logs

    teacher = network(5, 2)
    one, logs = fitted(tf.distribute.get_strategy().scope())
    two, mirrored = fitted(strategy.scope())
    with strategy.scope():
        inside = network(3, 1)
    outside = tfopt.Distiller(inside, teacher)
    print(outside.distribute_strategy is strategy)
    two_cached, cached = fitted(strategy.scope(), cache=sys.argv[1])
    for other, history in ((two, mirrored), (two_cached, cached)):
        print(all(np.allclose(a, b, atol=1e-5) for a, b in zip(one.get_weights(), other.get_weights(), strict=True)))
        print([name for name in logs if not np.allclose(logs[name], history[name], rtol=1e-4)])
""")


# Keras 3.15 halves the loss under two replicas.
@pytest.mark.thorough
def test_two_replicas_learn_as_one(tmp_path):
    command = [sys.executable, "-c", MIRRORED, str(tmp_path / "answers")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True", "True", "[]", "True", "[]"]


@pytest.mark.parametrize(("student_softmax", "teacher_softmax"), [(True, False), (False, True), (True, True)])
def test_a_softmax_is_not_applied_twice(student_softmax, teacher_softmax):
    expected = compiled(network(), network(5, seed=1))
    logs = expected.train_on_batch(X, Y, return_dict=True)
    distiller = compiled(
        network(softmax=student_softmax), network(5, seed=1, softmax=teacher_softmax), from_logits=not student_softmax
    )
    found = distiller.train_on_batch(X, Y, return_dict=True)
    assert all(np.isclose(logs[name], found[name], rtol=1e-4) for name in logs)
    assert equal_weights(expected.student, distiller.student, 1e-5)


def sequence_model(units, *, seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((5,)),
            L.Embedding(7, 4, mask_zero=True),
            L.Dense(units, "relu", name="hidden"),
            L.Dense(3, "softmax"),
        ]
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_padded_steps_do_not_count(weighted):
    tokens = rng.integers(1, 7, size=(8, 5))
    tokens[:, 3:] = 0
    tokens[0, 1:] = 0
    labels = rng.integers(0, 3, size=(8, 5))
    other = np.where(tokens == 0, (labels + 1) % 3, labels)
    results = []
    for targets in (labels, other):
        # The teacher sees another embedding of the padding each time.
        teacher = sequence_model(6, seed=1)
        teacher.layers[0].embeddings.assign(
            np.concatenate([np.full((1, 4), targets[0, 4]), np.asarray(teacher.layers[0].embeddings)[1:]])
        )
        losses = [LogitsLoss(), DecoupledLoss(), FeatureLoss("hidden", "hidden"), DistanceLoss("hidden", "hidden")]
        distiller = compiled(sequence_model(3, seed=0), teacher, losses, from_logits=False)
        distiller.projectors[0].matrix.assign(np.ones((3, 6)) / 3)
        weights = np.linspace(0, 2, 8).astype(np.float32)[:, None] if weighted else None
        logs = distiller.train_on_batch(tokens, targets, sample_weight=weights, return_dict=True)
        results.append((distiller.student, [logs[name] for name in sorted(logs)]))
    assert np.allclose(results[0][1], results[1][1], rtol=1e-5)
    assert equal_weights(results[0][0], results[1][0], 1e-6)


def test_several_teachers_count_by_their_shares():
    one, other = network(5, seed=1), network(4, seed=2)
    both = compiled(network(), [one, other], [LogitsLoss(), FeatureLoss("pool", "pool")], teacher_weights=[3, 1])
    assert len(both.projectors) == 2
    logs = both.train_on_batch(X, Y, return_dict=True)
    single = [compiled(network(), t).train_on_batch(X, Y, return_dict=True)["logits_loss"] for t in (one, other)]
    assert np.isclose(logs["logits_loss"], 0.75 * single[0] + 0.25 * single[1], rtol=1e-5)


@pytest.mark.thorough
def test_pruning_and_rounding_in_one_fit():
    student = tfopt.quantize_aware(network(softmax=True), calibration=X)
    teacher = network(5, seed=1)
    before = teacher.get_weights()
    distiller = compiled(
        student, teacher, [LogitsLoss(), FeatureLoss("conv_activation", "body/conv")], from_logits=False
    )
    history = distiller.fit(
        X,
        Y,
        batch_size=8,
        epochs=3,
        verbose=0,
        class_weight={0: 1.0, 1: 2.0, 2: 1.0},
        callbacks=[MagnitudePruning(0.5, end_step=4, frequency=1), QuantizationSchedule(2, 6, 8)],
    ).history
    assert np.isfinite(history["loss"]).all()
    assert history["sparsity"][-1] == 0.5
    for layer in ("conv_int8", "head_int8"):
        kernel = np.asarray(student.get_layer(layer).layer.kernel)
        assert np.mean(kernel == 0) >= 0.4
    assert np.all(np.asarray(distiller.projectors[0].matrix) != 0)
    assert all(map(np.array_equal, before, teacher.get_weights()))
    assert tfopt.quantization.is_quantize_aware(distiller.student)


def test_mixed_precision_scales_the_loss():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        student, teacher = network(), network(5, seed=1)
    finally:
        keras.config.set_dtype_policy("float32")
    distiller = compiled(student, teacher, all_losses())
    assert isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    expected = compiled(network(), network(5, seed=1), all_losses())
    history, reference = (
        model.fit(X, Y, epochs=3, verbose=0, shuffle=False).history for model in (distiller, expected)
    )
    assert np.allclose(history["logits_loss"], reference["logits_loss"], rtol=0.05, atol=1e-3)
    assert np.isfinite(history["loss"]).all()


def test_a_subclassed_student_and_teacher_are_compared_by_their_outputs():
    class Subclassed(keras.Model):
        def __init__(self, seed):
            super().__init__()
            keras.utils.set_random_seed(seed)
            self.flat, self.head = L.Flatten(), L.Dense(3)

        def call(self, x):
            return self.head(self.flat(x))

    student, teacher = Subclassed(0), Subclassed(1)
    student(X), teacher(X)
    loss = LogitsLoss(student_from_logits=True, teacher_from_logits=True)
    history = compiled(student, teacher, [loss, DistanceLoss()]).fit(X, Y, epochs=3, verbose=0).history
    assert history["logits_loss"][-1] < history["logits_loss"][0]


def test_the_teacher_alone_is_followed_without_labels():
    distiller = Distiller(network(), network(3, seed=1))
    distiller.compile(keras.optimizers.Adam(0.05))
    losses = distiller.fit(X, epochs=20, verbose=0).history["logits_loss"]
    assert losses[-1] < 0.3 * losses[0]
    with pytest.raises(ConfigError, match="validation and evaluate measure the student on labels"):
        distiller.evaluate(X, Y, verbose=0)


def test_self_distillation_from_a_trained_copy():
    teacher = network()
    student = keras.models.clone_model(teacher)
    distiller = compiled(student, teacher, [LogitsLoss(), FeatureLoss("body/conv", "body/conv")])
    assert distiller.projectors == []
    assert np.isfinite(distiller.fit(X, Y, verbose=0).history["loss"]).all()


def test_only_the_student_and_its_projectors_are_trained_and_kept(tmp_path):
    student, teacher = network(), network(5, seed=1)
    distiller = compiled(student, teacher, all_losses())
    own = {id(variable) for variable in [*student.trainable_variables, *distiller.projectors[0].trainable_variables]}
    assert {id(variable) for variable in distiller.trainable_variables} == own
    assert teacher.trainable
    distiller.fit(X, Y, verbose=0)
    distiller.save_weights(tmp_path / "d.weights.h5")
    again = compiled(network(seed=7), teacher, all_losses())
    again.load_weights(tmp_path / "d.weights.h5")
    assert equal_weights(again, distiller)
    student.save(tmp_path / "student.keras")
    assert np.allclose(keras.saving.load_model(tmp_path / "student.keras")(X), student(X), atol=1e-6)
    for save in (lambda: distiller.save(tmp_path / "d.keras"), distiller.get_config):
        with pytest.raises(ConfigError, match=r"Save distiller\.student"):
            save()
    assert not (tmp_path / "d.keras").exists()


def test_steps_per_execution_and_compilation_change_nothing():
    results = []
    for options in ({}, {"steps_per_execution": 4}, {"jit_compile": True}, {"run_eagerly": True}):
        distiller = Distiller(
            network(), network(5, seed=1), [LogitsLoss(), DecoupledLoss(), DistanceLoss("pool", "pool")]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(keras.optimizers.SGD(0.1), loss, **options)
        distiller.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
        results.append(distiller.student)
    assert all(equal_weights(results[0], other, 1e-5) for other in results[1:])


def test_a_weight_set_between_steps_counts_from_the_next_one():
    distiller = compiled(network(), network(5, seed=1))
    distiller.fit(X, Y, verbose=0)
    distiller.set_loss_weight("logits", 0.0)
    distiller.set_loss_weight("student", 3.0)
    logs = distiller.train_on_batch(X, Y, return_dict=True)
    assert np.isclose(logs["loss"], 3 * logs["student_loss"], rtol=1e-5)
    assert logs["logits_loss"] > 0


class Plain(DistillationLoss):
    def call(self, teacher, student):
        return keras.ops.mean(keras.ops.absolute(teacher - student), axis=-1)


def test_a_loss_of_ones_own():
    distiller = compiled(network(), network(5, seed=1), Plain(name="plain"))
    assert distiller.train_on_batch(X, Y, return_dict=True)["plain_loss"] > 0


def two_heads():
    x = keras.Input((6, 6, 1))
    y = L.Flatten()(x)
    return keras.Model(x, [L.Dense(3, name="a")(y), L.Dense(2, name="b")(y)])


def test_of_several_outputs_the_named_one_is_compared():
    student, teacher = two_heads(), network(5)
    distiller = Distiller(student, teacher, LogitsLoss(student_layer_name="a"))
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", [crossentropy, crossentropy])
    assert distiller.train_on_batch(X, [Y, Y % 2], return_dict=True)["logits_loss"] > 0
    decoupled = Distiller(two_heads(), teacher, DecoupledLoss(student_layer_name="a"))
    decoupled.compile("sgd", [crossentropy, crossentropy])
    with pytest.raises(ConfigError, match=r"takes one array of labels. Received: 2"):
        decoupled.train_on_batch(X, [Y, Y % 2])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda s, t: Distiller("s", t), ModelError, "Received: str"),
        (lambda s, t: Distiller(s, t, []), ConfigError, "Received: an empty list"),
        (lambda s, t: Distiller(s, t, "kl"), ConfigError, "Received: str"),
        (
            lambda s, t: Distiller(s, t, keras.distillation.LogitsDistillation()),
            ConfigError,
            "Received: LogitsDistillation. A loss of keras.distillation gives one number",
        ),
        (lambda s, t: Distiller(s, t, [LogitsLoss(), LogitsLoss(2.0)]), ConfigError, "several times: logits"),
        (lambda s, t: Distiller(s, t, LogitsLoss(name="student")), ConfigError, "several times: student"),
        (
            lambda s, t: Distiller(s, t, loss_weights={"logit": 1}),
            ConfigError,
            "names student, logits. Received: logit",
        ),
        (lambda s, t: Distiller(s, t, loss_weights={"logits": -1}), ConfigError, "weight of 'logits' .*Received: -1"),
        (lambda s, t: Distiller(s, t).set_loss_weight("logits", "a"), ConfigError, "Received: 'a'"),
        (lambda s, t: Distiller(s, two_heads()), ConfigError, "has 2 outputs: name the layer"),
        (lambda s, t: Distiller(s, t, FeatureLoss("conv", "pool")), ConfigError, "has no layer 'conv'.*body/conv"),
        (lambda s, t: Distiller(s, t, FeatureLoss("body/conv", "pool")), ConfigError, "both layers must give vectors"),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make(network(), network(5, seed=1))
