"""Thresholds chosen on data, the policy they make, and the report."""

import json

import keras
import numpy as np
import pytest
from exit_networks import classifier, samples, trained

from tfopt.early_exit import ExitPolicy, choose_thresholds, exit_report, split_stages
from tfopt.errors import ConfigError, DataError, ModelError

EXITS = ("exit_1", "exit_2", "classes")


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return trained()


@pytest.mark.slow
@pytest.mark.parametrize("confidence", ["probability", "entropy"])
@pytest.mark.parametrize("max_drop", [0.0, 0.02])
def test_the_drop_is_kept_to_on_the_data(network, confidence, max_drop) -> None:
    x, y = samples()
    policy = choose_thresholds(network, x, y, max_drop=max_drop, confidence=confidence)
    report = exit_report(network, x, y, policy)
    assert report.drop <= max_drop + 1e-9
    assert report.flops_fraction < 0.9
    assert policy.confidence == confidence


@pytest.mark.slow
def test_the_target_is_kept_to_on_the_data(network) -> None:
    x, y = samples()
    accuracies = []
    for percent in (30, 60, 90):
        policy = choose_thresholds(network, x, y, target=f"flops: {percent}%")
        report = exit_report(network, x, y, policy)
        assert report.flops_fraction <= percent / 100 + 1e-9
        accuracies.append(report.accuracy)
    assert accuracies == sorted(accuracies)
    with pytest.raises(ConfigError, match=r"at least .* that of the first exit"):
        choose_thresholds(network, x, y, target="flops: 1%")


def test_latency_takes_the_place_of_flops(network) -> None:
    x, y = samples()
    latencies = [1.0, 0.5, 0.1]  # the first stage is the slow one, though it has few FLOPs
    policy = choose_thresholds(network, x, y, target="latency: 80%", stage_latency_ms=latencies)
    shares = [row.share for row in exit_report(network, x, y, policy).rows]
    assert np.dot(shares, np.cumsum(latencies)) <= 0.8 * 1.6 + 1e-9


@pytest.mark.slow
def test_logits_are_told_from_probabilities() -> None:
    x, y = samples()
    network = trained(softmax=False)
    policy = choose_thresholds(network, x, y, max_drop=0.05)
    assert policy.from_logits
    assert all(0 < threshold <= 1 or np.isinf(threshold) for threshold in policy.thresholds)
    assert exit_report(network, x, y, policy).drop <= 0.05 + 1e-9


def test_targets_may_be_one_hot(network) -> None:
    x, y = samples()
    policies = [
        choose_thresholds(network, x, targets, max_drop=0.01) for targets in (y, np.eye(3)[y], y[:, np.newaxis])
    ]
    assert policies[0] == policies[1] == policies[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either max_drop or target"),
        ({"max_drop": 0.1, "target": "flops: 50%"}, "either max_drop or target"),
        ({"max_drop": 5}, r"fraction in \[0, 1\]\. Received: 5"),
        ({"target": "params: 50%"}, "'flops: 50%' or 'latency: 50%'"),
        ({"target": "latency: 50%"}, "needs stage_latency_ms"),
        ({"max_drop": 0.1, "stage_latency_ms": [1.0]}, "3 positive numbers"),
        ({"max_drop": 0.1, "confidence": "margin"}, "one of probability, entropy"),
    ],
)
def test_bad_arguments_are_refused(network, arguments, message) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_thresholds(network, *samples(8), **arguments)


def test_data_that_does_not_fit_is_refused(network) -> None:
    x, y = samples(8)
    with pytest.raises(DataError, match="a target for each of 8 samples"):
        choose_thresholds(network, x, y[:4], max_drop=0.1)
    with pytest.raises(DataError, match=r"must have shape \(n, 8, 8, 1\)"):
        choose_thresholds(network, x[:, :4], y, max_drop=0.1)
    with pytest.raises(ModelError, match="several exits"):
        choose_thresholds(classifier(), x, y, max_drop=0.1)


def test_the_report_counts_what_happens(network) -> None:
    x, y = samples(64, seed=1)
    policy = ExitPolicy(EXITS, (0.9, float("inf")))
    report = exit_report(network, x, y, policy)
    outputs = network.predict(x, verbose=0)
    leaving = outputs[0].max(axis=1) >= 0.9
    answers = np.where(leaving, outputs[0].argmax(1), outputs[2].argmax(1))
    flops = split_stages(network).cumulative_flops
    first, second, last = report.rows
    assert (first.share, second.share, last.share) == (leaving.mean(), 0.0, 1 - leaving.mean())
    assert report.accuracy == np.mean(answers == y)
    assert first.accuracy_of_leaving == np.mean(outputs[0].argmax(1)[leaving] == y[leaving])
    assert second.accuracy_of_leaving is None
    assert report.mean_flops == pytest.approx(np.where(leaving, flops[0], flops[2]).mean())
    text = str(report)
    assert "exit_2" in text
    assert "never" in text
    assert "points of accuracy given up" in text


def test_a_policy_of_another_network_is_refused(network) -> None:
    for policy in (ExitPolicy(("exit_1", "classes"), (0.9,)), ExitPolicy(EXITS, (0.9, 0.9), from_logits=True)):
        with pytest.raises(ConfigError, match="Expected a policy for the exits"):
            exit_report(network, *samples(8), policy)


def test_a_policy_is_plain_data() -> None:
    policy = ExitPolicy(EXITS, (0.75, float("inf")), "entropy", from_logits=True)
    text = json.dumps(policy.to_dict(), allow_nan=False)
    assert ExitPolicy.from_dict(json.loads(text)) == policy
    with pytest.raises(ConfigError, match="exits, thresholds, confidence and from_logits"):
        ExitPolicy.from_dict({"exits": EXITS})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("classes",), ()), "at least two exits"),
        ((EXITS, (0.5,)), "a threshold for each but the last"),
        ((EXITS, (0.5, -1.0)), "numbers from 0 on"),
        ((EXITS, (0.5, float("nan"))), "numbers from 0 on"),
    ],
)
def test_policies_that_cannot_be_are_refused(arguments, message) -> None:
    with pytest.raises(ConfigError, match=message):
        ExitPolicy(*arguments)
