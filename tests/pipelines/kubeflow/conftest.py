"""A job to send to the stand-in server."""

import pytest

from tests.pipelines.kubeflow.client import write_job


@pytest.fixture
def job(tmp_path):
    return write_job(tmp_path)
