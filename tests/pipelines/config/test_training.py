"""How long the trainings take, and on what: what is refused."""

import pytest

from tests.pipelines.config.sample import expect_refusal


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (("search: {epochs: 3, steps: 4}",), ["search: exactly one of 'epochs' and 'steps' is expected, got both"]),
        (
            ("search: {epochs: 3, distribution: {strategy: mirror}}",),
            ["search.distribution.strategy: expected 'mirrored', 'multi_worker_mirrored' or 'tpu', got 'mirror'"],
        ),
        (
            ("search: {epochs: 3, distribution: {strategy: tpu, devices: [TPU:0]}}",),
            ["search.distribution: 'devices' goes with strategy mirrored only"],
        ),
        (
            ("finish: in_place", "retrain: {epochs: 9}", "search: {epochs: 3, distill: {weight: 2}}"),
            ["search.distill.weight: expected less than or equal to 1, got 2 (of the teacher beside the labels"],
        ),
        (
            ("finish: in_place", "retrain: {epochs: 9}", "search: {epochs: 3, distill: {temprature: 2}}"),
            ["search.distill.temprature: unknown key; did you mean 'temperature'?"],
        ),
        (
            ("finish: in_place", "retrain: {epochs: 9}", "search: {epochs: 3, distill: seed}"),
            ["search.distill: true, false or settings are expected, got 'seed'. For example: distill: {temperature"],
        ),
        (
            ("search: {epochs: 3, distill: true}",),
            ["search.distill: the seed teaches the network that is cut", "Say finish: in_place"],
        ),
        (("retrain: {}",), ["retrain: exactly one of 'epochs' and 'steps' is expected, got neither"]),
    ],
)
def test_a_training_without_one_length_or_on_devices_that_cannot_be_is_refused(changes, parts):
    expect_refusal(changes, parts)
