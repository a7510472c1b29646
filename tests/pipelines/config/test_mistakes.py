"""How what is wrong is told: by its key, with what was expected, everything at once."""

import pytest

from tests.pipelines.config.sample import error_of, expect_refusal


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (("targt: 0.4",), ["targt: unknown key", "did you mean 'target'?"]),
        (("search: {epoch: 3}",), ["search.epoch: unknown key; did you mean 'epochs'?", "epochs, steps, batch_size"]),
        (
            ("kubeflow: {image: x, accelerator: {cout: 2}}",),
            ["kubeflow.accelerator.cout: unknown key; did you mean 'c"],
        ),
        (("label:",), ["label: missing", "name of the label", "For example: label: label"]),
        (("retrain_pipeline: {structur: x}",), ["retrain_pipeline.structur: unknown key; did you mean 'structure'?"]),
    ],
)
def test_a_key_that_is_unknown_or_missing_is_named_with_those_that_there_are(changes, parts):
    expect_refusal(changes, parts)


def test_all_mistakes_are_reported_together():
    message = error_of("targt: 1", "cycles: 0", "label:")
    assert message.startswith("config.yaml: 3 problems\n")
    assert len(message.splitlines()) == 4
