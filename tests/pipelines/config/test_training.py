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
        (("retrain: {}",), ["retrain: exactly one of 'epochs' and 'steps' is expected, got neither"]),
    ],
)
def test_a_training_without_one_length_or_on_devices_that_cannot_be_is_refused(changes, parts):
    expect_refusal(changes, parts)
