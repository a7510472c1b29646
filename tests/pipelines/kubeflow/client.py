"""A client of the stand-in server: it waits without waiting; and what the server then holds."""

import time

import yaml

from morph_tfx.pipelines.kubeflow.api import Connection, KubeflowApi
from morph_tfx.pipelines.kubeflow.credentials import find_credential
from morph_tfx.pipelines.kubeflow.upload import Job
from tests.pipelines.kubeflow.server import TOKEN

WAYS = ["lost", "cut", "hang", "die", "die before", 500, 503, 429]


def write_job(directory, name="digits", image="image:1"):
    path = directory / f"{name}.yaml"
    spec = {
        "pipelineInfo": {"name": name},
        "schemaVersion": "2.1.0",
        "root": {"dag": {"tasks": {}}},
        "deploymentSpec": {"executors": {"one": {"container": {"image": image}}}},
    }
    path.write_text("# a comment\n" + yaml.safe_dump(spec))
    return Job.load(path)


class Patience:
    """Waits without waiting, and starts a server again that died."""

    def __init__(self, server):
        self.server = server
        self.waits = []
        self.lines = []

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.server.start()


class Waiting(Patience):
    """As Patience, but lets some real time pass."""

    def __init__(self, server, seconds):
        super().__init__(server)
        self.seconds = seconds

    def sleep(self, seconds):
        time.sleep(self.seconds)
        super().sleep(seconds)


def connect(server, patience=None, token=TOKEN, **more):
    patience = patience or Patience(server)
    environment = {"KFP_TOKEN": token} if token else {}
    credential = find_credential(server.url, environment=environment)
    connection = Connection(server.url, credential=credential, timeout=more.pop("timeout", 0.25), **more)
    return KubeflowApi(connection, say=patience.lines.append, sleep=patience.sleep)


def counts(server):
    state = server.state
    return [len(kind) for kind in (state.pipelines, state.pipeline_versions, state.experiments, state.runs)]


def schedules_of(server, name="digits"):
    return [one for one in server.state.recurringRuns.values() if one["display_name"] == name]
