"""The stand-in for Kubeflow does what Kubeflow does: jobs of small shell containers, in which no TFX runs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format

from tests.kubeflow.conditions import ConditionError, holds
from tests.kubeflow.launcher import PROTOS, Cluster, Refused

ARTIFACT = {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}
TEXT = {"artifacts": {"text": {"artifactType": ARTIFACT}}}
WRITE = """echo {word} > "{{{{$.outputs.artifacts['text'].path}}}}" """
COPY = """cat "{{$.inputs.artifacts['text'].path}}" > "{{$.outputs.artifacts['text'].path}}" """


CACHED = {"cachingOptions": {"enableCache": True}}


def writer(word: str = "hello", **task: Any) -> dict[str, Any]:
    """A step with an artifact that holds one word."""
    return step(WRITE.format(word=word), outputs=TEXT, **task)


def copier(producer: str, **task: Any) -> dict[str, Any]:
    """A step whose artifact is a copy of another step's."""
    inputs = {"artifacts": {"text": {"taskOutputArtifact": {"producerTask": producer, "outputArtifactKey": "text"}}}}
    return step(COPY, inputs=TEXT, outputs=TEXT, task_inputs=inputs, dependentTasks=[producer], **task)


def step(
    script: str,
    inputs: dict[str, Any] | None = None,
    outputs: dict[str, Any] | None = None,
    task_inputs: dict[str, Any] | None = None,
    **task: Any,
) -> dict[str, Any]:
    """A step that runs a shell script: its component, its executor and its task."""
    component = {"inputDefinitions": inputs or {}, "outputDefinitions": outputs or {}}
    container = {"image": "image:1", "command": ["sh", "-ec"], "args": [script]}
    return {"component": component, "executor": {"container": container}, "task": {"inputs": task_inputs or {}, **task}}


def written(directory: Path, steps: dict[str, Any], parameters: dict[str, Any] | None = None, **changed: Any) -> Path:
    """The file of a job of these steps."""
    spec = {
        "schemaVersion": "2.1.0",
        "pipelineInfo": {"name": "small"},
        "defaultPipelineRoot": "minio://bucket/root",
        "components": {name: {"executorLabel": name, **parts["component"]} for name, parts in steps.items()},
        "deploymentSpec": {"executors": {name: parts["executor"] for name, parts in steps.items()}},
        "root": {
            "dag": {
                "tasks": {
                    name: {"componentRef": {"name": name}, "taskInfo": {"name": name}, **parts["task"]}
                    for name, parts in steps.items()
                }
            },
            "inputDefinitions": {"parameters": parameters or {}},
        },
        **changed,
    }
    file = directory / "job.yaml"
    file.write_text(yaml.safe_dump(spec))
    return file


@pytest.fixture
def cluster(tmp_path) -> Cluster:
    return Cluster(tmp_path / "cluster")


def test_an_artifact_travels_through_the_object_store_and_pods_leave_nothing(cluster, tmp_path):
    run = cluster.run(written(tmp_path, {"first": writer(), "second": copier("first")}))
    assert run.succeeded, str(run)
    uri = run.tasks["second"].outputs["text"].uri
    assert uri.startswith("minio://mlpipeline/v2/artifacts/small/run-1/second/")
    assert cluster.stored(uri).read_text() == "hello\n"
    assert [path for path in (cluster.directory / "pods").rglob("*") if path.is_file()] == []


def test_a_container_gets_its_input_with_lost_types_and_an_output_for_logs(cluster, tmp_path):
    show = step("echo '{{$}}'", inputs=TEXT, task_inputs=copier("first")["task"]["inputs"])
    run = cluster.run(written(tmp_path, {"first": writer(), "show": show}))
    invocation = json.loads(run.tasks["show"].log)
    [text] = invocation["inputs"]["artifacts"]["text"]["artifacts"]
    assert text["type"] == {"instanceSchema": ""}
    assert text["name"] == str(run.tasks["first"].outputs["text"].id)
    [logs] = invocation["outputs"]["artifacts"]["executor-logs"]["artifacts"]
    assert logs["type"] == {"schemaTitle": "system.Artifact"}
    assert logs["name"] == "executor-logs" and logs["uri"].endswith("/executor-logs-0")
    assert invocation["outputs"]["outputFile"].endswith(
        logs["uri"].removeprefix("minio://").replace("executor-logs-0", "output_metadata.json")
    )
    assert cluster.stored(run.tasks["show"].outputs["executor-logs"].uri).read_text() == run.tasks["show"].log


def test_a_failing_step_is_failed_with_its_status_and_what_follows_is_left_out(cluster, tmp_path):
    failing = step("echo no such luck; exit 3", outputs=TEXT)
    run = cluster.run(written(tmp_path, {"bad": failing, "after": copier("bad"), "beside": writer()}))
    assert not run.succeeded
    assert (run.tasks["bad"].state, run.tasks["bad"].message) == (
        "failed",
        "failed to execute component: exit status 3",
    )
    assert run.tasks["bad"].log == "no such luck\n"
    assert run.tasks["after"].state == "omitted"
    assert run.tasks["beside"].state == "succeeded"


def test_the_root_is_that_of_the_request_and_never_that_of_the_job(cluster, tmp_path):
    file = written(tmp_path, {"first": writer()})
    assert yaml.safe_load(file.read_text())["defaultPipelineRoot"] == "minio://bucket/root"
    for root, expected in (("", "minio://mlpipeline/v2/artifacts"), ("gs://mine/root/", "gs://mine/root")):
        [uri] = {one.uri for one in cluster.run(file, root=root).tasks["first"].outputs.values() if "text" in one.uri}
        assert uri.startswith(f"{expected}/small/run-")
    with pytest.raises(Refused, match="unsupported Cloud bucket"):
        cluster.run(file, root="hdfs://host/root")


def test_each_attempt_has_a_log_of_its_own_also_when_it_failed(cluster, tmp_path):
    count = tmp_path / "count"
    script = f"echo x >> {count}; wc -l < {count}; test $(wc -l < {count}) -ge 2"
    run = cluster.run(written(tmp_path, {"flaky": step(script, retryPolicy={"maxRetryCount": 1})}))
    logs = [one.uri for one in cluster.artifacts]
    assert [uri.rpartition("/")[2] for uri in logs] == ["executor-logs-0", "executor-logs-1"]
    assert [cluster.stored(uri).read_text().strip() for uri in logs] == ["1", "2"]
    assert run.succeeded


def test_an_older_release_keeps_one_log_of_what_succeeded(tmp_path):
    older = Cluster(tmp_path / "cluster", release="2.14.3")
    run = older.run(written(tmp_path, {"bad": step("exit 1"), "show": step("echo '{{$}}'")}))
    assert run.tasks["bad"].outputs == {}
    invocation = json.loads(run.tasks["show"].log)
    assert invocation["outputs"]["outputFile"].endswith("/tmp/kfp_outputs/output_metadata.json")
    [logs] = invocation["outputs"]["artifacts"]["executor-logs"]["artifacts"]
    assert "name" not in logs and logs["uri"].endswith("/executor-logs")


def importing(uri: str) -> dict[str, Any]:
    importer = {"importer": {"artifactUri": {"constant": uri}, "typeSchema": ARTIFACT}}
    return {"component": {"outputDefinitions": TEXT}, "executor": importer, "task": {}}


@pytest.mark.parametrize("uri", ["/mnt/serving/1", "best/structure.json", "hdfs://host/model", "file:///mnt/serving"])
def test_an_importer_takes_addresses_of_object_stores_alone(cluster, tmp_path, uri):
    run = cluster.run(written(tmp_path, {"import": importing(uri), "copy": copier("import")}))
    assert run.tasks["import"].message.endswith(f"no provider scheme found in artifact URI: {uri}")
    assert run.tasks["copy"].state == "omitted"


def reporting_uri(uri: str) -> dict[str, Any]:
    """A step that says that its artifact lies elsewhere."""
    report = f'{{"artifacts": {{"text": {{"artifacts": [{{"uri": "{uri}"}}]}}}}}}'
    find = """file=$(echo '{{$}}' | sed 's/.*"outputFile": *"\\([^"]*\\)".*/\\1/'); mkdir -p $(dirname $file)"""
    return step(f"{find}; echo '{report}' > $file", outputs=TEXT)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("/mnt/model", "failed to fetch non default buckets.*unrecognized uri format: '/mnt/model'"),
        ("hdfs://host/model", "failed to fetch non default buckets.*unsupported Cloud bucket"),
    ],
)
def test_an_input_that_lies_in_no_object_store_fails_the_step_that_wants_it(cluster, tmp_path, uri, message):
    run = cluster.run(written(tmp_path, {"elsewhere": reporting_uri(uri), "copy": copier("elsewhere")}))
    assert run.tasks["elsewhere"].state == "succeeded"  # what cannot be uploaded is only warned of
    assert re.search(message, run.tasks["copy"].message)


def test_a_whole_bucket_is_no_input(cluster, tmp_path):
    run = cluster.run(written(tmp_path, {"import": importing("gs://bucket"), "copy": copier("import")}))
    assert "has empty key given prefixed bucket 'gs://bucket'" in run.tasks["copy"].message


def test_an_output_lies_below_the_root_of_the_run(cluster, tmp_path):
    run = cluster.run(written(tmp_path, {"elsewhere": reporting_uri("minio://other/text")}))
    assert "does not have expected bucket prefix 'minio://mlpipeline/" in run.tasks["elsewhere"].message


@pytest.mark.parametrize(("release", "seen"), [("2.14.3", ["word", "word_metrics"]), ("2.17.0", ["word"])])
def test_older_releases_download_everything_whose_key_starts_like_the_inputs(tmp_path, release, seen):
    cluster = Cluster(tmp_path / "cluster", release=release)
    cluster.stored("gs://elsewhere").mkdir(parents=True)
    for name in ("word", "word_metrics", "sword"):
        cluster.stored(f"gs://elsewhere/{name}").write_text(name)
    inputs = copier("import")["task"]["inputs"]
    look = step("""ls $(dirname "{{$.inputs.artifacts['text'].path}}")""", inputs=TEXT, task_inputs=inputs)
    run = cluster.run(written(tmp_path, {"import": importing("gs://elsewhere/word"), "look": look}))
    assert run.tasks["look"].log.split() == seen


@pytest.mark.parametrize(("release", "state"), [("2.14.3", "cached"), ("2.17.0", "succeeded")])
def test_another_volume_is_another_step_to_newer_releases(tmp_path, release, state):
    cluster = Cluster(tmp_path / "cluster", release=release)
    file = written(tmp_path, {"first": writer(**CACHED)})
    job = file.read_text()
    for claim, expected in (("one", "succeeded"), ("one", "cached"), ("two", state)):
        mount = {"pvcMount": [{"constant": claim, "mountPath": "/mnt"}]}
        platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"first": mount}}}}}
        file.write_text(f"{job}\n---\n{yaml.safe_dump(platform)}")
        assert cluster.run(file).tasks["first"].state == expected


@pytest.mark.parametrize(("release", "says"), [("2.14.3", "0.00001"), ("2.17.0", "1e-05")])
def test_numbers_in_arguments_are_written_as_the_release_writes_them(tmp_path, release, says):
    inputs = {"parameters": {"rate": {"parameterType": "NUMBER_DOUBLE"}}}
    show = step(
        "echo {{$.inputs.parameters['rate']}}",
        inputs=inputs,
        task_inputs={"parameters": {"rate": {"runtimeValue": {"constant": 0.00001}}}},
    )
    cluster = Cluster(tmp_path / "cluster", release=release)
    assert cluster.run(written(tmp_path, {"show": show})).tasks["show"].log.strip() == says


def test_an_argument_without_a_value_fails_in_the_driver(cluster, tmp_path):
    run = cluster.run(written(tmp_path, {"show": step("echo {{$.inputs.parameters['rate']}}")}))
    assert run.tasks["show"].message == (
        "failed to resolve container args: parameter 'rate' not found in executor input"
    )


def test_a_killed_step_is_failed_by_its_signal(cluster, tmp_path):
    run = cluster.run(written(tmp_path, {"killed": step("kill -9 $$")}))
    assert run.tasks["killed"].message == "failed to execute component: signal 9"


def test_retries_follow_the_policy_each_in_a_fresh_pod(cluster, tmp_path):
    count = tmp_path / "count"
    script = f"test ! -e here; touch here; echo x >> {count}; test $(wc -l < {count}) -ge 3"
    flaky = step(script, retryPolicy={"maxRetryCount": 2, "backoffDuration": "3600s"})
    assert cluster.run(written(tmp_path, {"flaky": flaky})).tasks["flaky"].attempts == 3
    count.unlink()
    flaky["task"]["retryPolicy"] = {"maxRetryCount": 1}
    run = cluster.run(written(tmp_path, {"flaky": flaky}))
    assert (run.tasks["flaky"].state, run.tasks["flaky"].attempts) == ("failed", 2)


def test_an_equal_step_is_not_executed_twice(cluster, tmp_path):
    steps = {"first": writer(**CACHED), "second": copier("first", **CACHED), "uncached": copier("first")}
    first, second = (cluster.run(written(tmp_path, steps)) for _ in range(2))
    assert second.in_state("cached") == {"first", "second"}
    assert second.tasks["second"].outputs == first.tasks["second"].outputs
    assert second.tasks["uncached"].state == "succeeded"
    # The key holds the command, so another word is another execution, and so is what reads its artifact.
    third = cluster.run(written(tmp_path, {**steps, "first": writer("other", **CACHED)}))
    assert third.in_state("cached") == set()


def test_the_cache_does_not_look_into_files(cluster, tmp_path):
    """Why ExampleGen must not be cached: the same command on other data is the same to Kubeflow."""
    (tmp_path / "data").write_text("old")
    copy = f"""cp {tmp_path}/data "{{{{$.outputs.artifacts['text'].path}}}}" """
    file = written(tmp_path, {"read": step(copy, outputs=TEXT, **CACHED)})
    cluster.run(file)
    (tmp_path / "data").write_text("new")
    uri = cluster.run(file).tasks["read"].outputs["text"].uri
    assert cluster.stored(uri).read_text() == "old"


def test_failures_are_not_cached(cluster, tmp_path):
    file = written(tmp_path, {"bad": step("exit 1", **CACHED)})
    assert [cluster.run(file).tasks["bad"].state for _ in range(2)] == ["failed", "failed"]


def test_directories_arrive_without_what_is_empty(cluster, tmp_path):
    make = """mkdir -p "{{$.outputs.artifacts['text'].path}}"/full "{{$.outputs.artifacts['text'].path}}"/empty
    echo x > "{{$.outputs.artifacts['text'].path}}"/full/file"""
    look = step(
        """ls "{{$.inputs.artifacts['text'].path}}" """, inputs=TEXT, task_inputs=copier("make")["task"]["inputs"]
    )
    run = cluster.run(written(tmp_path, {"make": step(make, outputs=TEXT), "look": look}))
    assert run.tasks["look"].log == "full\n"


NUMBER = {"parameters": {"number": {"parameterType": "NUMBER_INTEGER"}}}


def test_parameters_come_from_the_job_from_defaults_and_from_other_steps(cluster, tmp_path):
    double = step(
        """echo $((2 * {{$.inputs.parameters['number']}})) > {{$.outputs.parameters['number'].output_file}}""",
        inputs=NUMBER,
        outputs=NUMBER,
        task_inputs={"parameters": {"number": {"componentInputParameter": "start"}}},
    )
    show = step(
        "echo {{$.inputs.parameters['number']}}",
        inputs=NUMBER,
        task_inputs={
            "parameters": {
                "number": {"taskOutputParameter": {"producerTask": "double", "outputParameterKey": "number"}}
            }
        },
    )
    start = {"start": {"parameterType": "NUMBER_INTEGER", "defaultValue": 4}}
    file = written(tmp_path, {"double": double, "show": show}, start)
    assert cluster.run(file).tasks["show"].log == "8\n"
    assert cluster.run(file, {"start": 5}).tasks["show"].log == "10\n"
    with pytest.raises(Refused, match="'other' is not an input of the job"):
        cluster.run(file, {"other": 5})
    assert "type mismatch" in cluster.run(file, {"start": "five"}).tasks["double"].message
    start["start"].pop("defaultValue")
    with pytest.raises(Refused, match="neither a default value nor one that was given"):
        cluster.run(written(tmp_path, {"double": double, "show": show}, start))


def reporting(metadata: str) -> dict[str, Any]:
    """A step whose output file says this of its artifact."""
    report = f'{{"artifacts": {{"text": {{"artifacts": [{{"metadata": {metadata}}}]}}}}}}'
    find = """file=$(echo '{{$}}' | sed 's/.*"outputFile": *"\\([^"]*\\)".*/\\1/'); mkdir -p $(dirname $file)"""
    return step(f"{WRITE.format(word='x')}; {find}; echo '{report}' > $file", outputs=TEXT)


def test_metadata_comes_back_as_ml_metadata_keeps_it(cluster, tmp_path):
    metadata = '{"number": 1, "flag": true, "list": [1], "struct": {"a": 1}, "text": "x"}'
    run = cluster.run(written(tmp_path, {"report": reporting(metadata)}))
    kept = {"number": 1, "flag": 1, "list": {"list": [1]}, "struct": {"struct": {"a": 1}}, "text": "x"}
    found = run.tasks["report"].outputs["text"].metadata
    assert json.loads(found.pop("store_session_info"))["Provider"] == "minio"
    assert found == {"display_name": "text", **kept}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [('{"nothing": null}', "unknown or unsupported value type: null"), ("{}}", "failed to unmarshall ExecutorOutput")],
)
def test_a_report_that_the_launcher_cannot_read_fails_the_step(cluster, tmp_path, metadata, message):
    run = cluster.run(written(tmp_path, {"report": reporting(metadata)}))
    assert run.tasks["report"].state == "failed"
    assert message in run.tasks["report"].message


def test_a_condition_decides_whether_a_step_runs(cluster, tmp_path):
    def judged(expected: str) -> dict[str, Any]:
        condition = f"(inputs.artifacts['text'].artifacts[0].metadata['score'] > {expected})"
        return copier("report", triggerPolicy={"condition": condition})

    steps = {"report": reporting('{"score": 0.9}'), "yes": judged("0.5"), "no": judged("0.95")}
    steps["after"] = copier("no")
    run = cluster.run(written(tmp_path, steps))
    assert {name: task.state for name, task in run.tasks.items()} == {
        "report": "succeeded", "yes": "succeeded", "no": "skipped", "after": "omitted",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("(inputs.artifacts['b'].artifacts[0].metadata['n'] == 1.0)", True),
        ("(inputs.artifacts['b'].artifacts[0].metadata['n'] < 1.0)", False),
        ("!((inputs.artifacts['b'].artifacts[0].metadata['n'] == 1.0))", False),
        ("(inputs.artifacts['b'].artifacts[0].metadata['s'] != 'no' && true)", True),
        ("(false || (inputs.artifacts['b'].artifacts[0].uri == ('gs:' + '//x')))", True),
        ("inputs.parameter_values['p'] >= 2", True),
    ],
)
def test_conditions_mean_what_they_say(condition, expected):
    assert holds(condition, an_invocation()) is expected


@pytest.mark.parametrize(
    "condition",
    ["inputs.artifacts['b'].artifacts[0].metadata['missing'] == 1.0", "inputs.artifacts", "(1.0 ==", "open('x')"],
)
def test_a_condition_without_a_value_is_an_error(condition):
    with pytest.raises(ConditionError):
        holds(condition, an_invocation())


def an_invocation() -> Any:
    artifact = {"uri": "gs://x", "metadata": {"n": 1, "s": "yes"}}
    inputs = {"artifacts": {"b": {"artifacts": [artifact]}}, "parameterValues": {"p": 2}}
    return json_format.ParseDict({"inputs": inputs}, PROTOS.ExecutorInput())


def test_an_importer_gives_the_same_artifact_again(cluster, tmp_path):
    imported = importing("gs://elsewhere/word")
    cluster.stored("gs://elsewhere").mkdir(parents=True)
    cluster.stored("gs://elsewhere/word").write_text("imported")
    file = written(tmp_path, {"import": imported, "copy": copier("import", **CACHED)})
    first, second = cluster.run(file), cluster.run(file)
    assert cluster.stored(first.tasks["copy"].outputs["text"].uri).read_text() == "imported"
    assert second.tasks["import"].outputs == first.tasks["import"].outputs
    assert second.tasks["copy"].state == "cached"


@pytest.mark.parametrize(
    ("steps", "changed", "message"),
    [
        ({"a": writer()}, {"schemaVersion": "2.0.0"}, "only supports schema version 2.1.0"),
        ({"a_b": writer()}, {}, "letters, digits and '-' only"),
        ({"a": copier("b"), "b": copier("a")}, {}, "wait for each other"),
        ({"a": copier("missing")}, {}, "cannot find producer task"),
        (
            {"a": {"component": {}, "executor": {"resolver": {}}, "task": {}}},
            {},
            "non-container and non-importer executor not implemented",
        ),
    ],
)
def test_what_kubeflow_refuses_is_refused(cluster, tmp_path, steps, changed, message):
    with pytest.raises(Refused, match=message):
        cluster.run(written(tmp_path, steps, **changed))


def test_a_job_that_the_kfp_sdk_compiled_runs(cluster, tmp_path):
    from kfp import compiler, dsl

    @dsl.container_component
    def say(word: str, said: dsl.Output[dsl.Artifact]):
        return dsl.ContainerSpec(image="image:1", command=["sh", "-c", 'echo "$0" > "$1"'], args=[word, said.path])

    @dsl.container_component
    def repeat(said: dsl.Input[dsl.Artifact], out: dsl.OutputPath(str)):  # pyright: ignore[reportInvalidTypeForm]
        return dsl.ContainerSpec(image="image:1", command=["cp"], args=[said.path, out])

    @dsl.pipeline(name="sdk", pipeline_root="s3://bucket/root")
    def sdk(word: str = "hello"):
        repeat(said=say(word=word).outputs["said"])

    compiled: Any = sdk
    compiler.Compiler().compile(compiled, str(tmp_path / "sdk.yaml"))
    run = cluster.run(tmp_path / "sdk.yaml", {"word": "there"})
    assert run.succeeded, str(run)
    assert run.tasks["repeat"].parameters["out"] == "there\n"
