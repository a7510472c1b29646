"""The command line, connected to the stand-in server, and a job to send there."""

import pytest
from click.testing import CliRunner

from morph_tfx.pipelines.commands.cli import cli


@pytest.fixture
def invoke(server, tmp_path):
    """invoke(*arguments) calls morph-tfx, connected to the server; what it says."""
    from tests.pipelines.kubeflow.server import TOKEN

    (tmp_path / "token").write_text(TOKEN)

    def call(*arguments, exit_code=0, **environment):
        connection = {"KFP_ENDPOINT": server.url, "KFP_TOKEN_FILE": str(tmp_path / "token"), **environment}
        result = CliRunner(env=connection).invoke(cli, [str(argument) for argument in arguments])
        assert result.exit_code == exit_code, result.output
        assert TOKEN not in result.output
        return result.output

    return call


@pytest.fixture
def job(tmp_path):
    from tests.pipelines.kubeflow.client import write_job

    return write_job(tmp_path).path
