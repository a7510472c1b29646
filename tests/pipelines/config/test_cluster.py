"""What a job needs to know about the cluster: what is missing or cannot be."""

import pytest

from tests.pipelines.config.sample import expect_refusal


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (("kubeflow: {cpu: 4}",), ["kubeflow.image: missing", "container image"]),
        (("kubeflow: {image: x, module_dir: modules}",), ["kubeflow.module_dir: expected text that matches"]),
    ],
)
def test_a_job_needs_an_image_and_a_place_in_it(changes, parts):
    expect_refusal(changes, parts)
