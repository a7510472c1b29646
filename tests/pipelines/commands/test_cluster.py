"""The commands that talk to a cluster: what a mistake ends in, and that none takes a secret."""

import pytest

from morph_tfx.pipelines.commands.cli import cli


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["submit"], "One of --config and --job is expected"),
        (["schedule", "--job", "JOB"], "Missing option '--cron'"),
        (["schedule", "--cron", "0 25 * * *", "--job", "JOB"], "'25' in '0 25 * * *' is no hour"),
        (
            ["schedule", "--cron", "@daily", "--job", "JOB", "--max-concurrency", "11"],
            "11 is not in the range 1<=x<=10",
        ),
        (["schedule", "update", "digits"], "Nothing to change"),
        (["schedule", "enable", "digits"], "There is no schedule 'digits'; there are none."),
        (["schedule", "list", "--endpoint", "somewhere"], "endpoint: expected the address"),
    ],
)
def test_a_mistake_ends_in_one_message_and_exit_code_2(invoke, server, job, arguments, said):
    output = invoke(*[str(job) if one == "JOB" else one for one in arguments], exit_code=2)
    assert said in output
    assert "Traceback" not in output
    assert server.state.recurringRuns == server.state.runs == {}


def test_without_an_endpoint_the_message_says_how_to_name_one(invoke):
    output = invoke("schedule", "list", KFP_ENDPOINT="", exit_code=2)
    assert "--endpoint URL, KFP_ENDPOINT or kubeflow_api.endpoint" in output


def test_no_command_takes_a_secret_as_an_argument():
    """What is on a command line can be read by every user of the machine."""
    schedule = cli.commands["schedule"]
    for command in (cli.commands["submit"], *schedule.commands.values()):
        for parameter in command.params:
            if parameter.name and any(word in parameter.name for word in ("token", "cookie", "password", "secret")):
                assert parameter.name.endswith("_file")
