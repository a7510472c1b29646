"""The entrypoint, called in this process with what Kubeflow's launcher hands it: what executors see, what is told."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morph_core import MorphError
from morph_tfx.components import MorphStructure
from morph_tfx.pipelines.kubeflow import entrypoint
from morph_tfx.pipelines.kubeflow.entrypoint import LAUNCHER_ROOT, local_path, remote_uri

MODEL = {"instanceSchema": "title: tfx.Model\ntype: object\n"}
EXAMPLES = {"instanceSchema": "title: tfx.Examples\ntype: object\n"}
STRUCTURE = {"instanceSchema": "title: morph_tfx.MorphStructure\ntype: object\n"}
LOGS = {"executor-logs": {"schemaTitle": "system.Artifact"}}
OUTPUT_FILE = "tmp/kfp_outputs/output_metadata.json"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(LAUNCHER_ROOT, str(tmp_path))
    return tmp_path


@pytest.fixture
def probe(monkeypatch) -> Any:
    from tests.kubeflow.steps import Probe

    monkeypatch.setattr(Probe, "seen", {})
    monkeypatch.setattr(Probe, "action", lambda outputs: None)
    return Probe


def called(root: Path, *flags: str, **step: Any) -> dict[str, Any]:
    """What the entrypoint reports of a step; the arguments are those of `exit_code`."""
    assert exit_code(root, *flags, **step) == 0
    return json.loads((root / OUTPUT_FILE).read_text())


def exit_code(
    root: Path,
    *flags: str,
    inputs: dict[str, Any] | None = None,
    types: dict[str, Any] | None = None,
    outputs: dict[str, Any] | None = None,
    parameters: dict[str, Any] | None = None,
    output_parameters: tuple[str, ...] = (),
    scheme: str = "minio",
    executor: str = "tests.kubeflow.steps.Probe",
) -> int:
    """Calls the entrypoint as a step with these inputs (artifacts), outputs (types) and parameters."""
    invocation = {
        "inputs": {
            "artifacts": {name: {"artifacts": [artifact]} for name, artifact in (inputs or {}).items()},
            "parameterValues": parameters or {},
        },
        "outputs": {
            "artifacts": {
                name: {"artifacts": [{"uri": f"{scheme}://bucket/run/{name}", "type": kind}]}
                for name, kind in {**(outputs or {}), **LOGS}.items()
            },
            "parameters": {name: {"outputFile": str(root / name)} for name in output_parameters},
            "outputFile": str(root / OUTPUT_FILE),
        },
    }
    kinds = {str: "STRING", int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE"}
    spec = {
        "artifacts": {name: {"artifactType": kind} for name, kind in (types or {}).items()},
        "parameters": {name: {"parameterType": kinds[type(value)]} for name, value in (parameters or {}).items()},
    }
    return entrypoint.main(
        [
            "--executor_class_path", executor, "--json_serialized_invocation_args", json.dumps(invocation),
            "--json_serialized_inputs_spec_args", json.dumps(spec), *flags,
        ]
    )  # fmt: skip


@given(scheme=st.sampled_from(["minio", "s3", "gs"]), key=st.text(min_size=1))
def test_local_paths_lead_back_to_their_addresses(scheme, key):
    assert remote_uri(local_path(f"{scheme}://bucket/{key}")) == f"{scheme}://bucket/{key}"


def test_local_paths_are_those_of_the_launcher():
    assert local_path("minio://bucket/key") == "/minio/bucket/key"
    assert local_path("s3://bucket/key") == "/s3/bucket/key"
    assert local_path("gs://bucket/key") == "/gcs/bucket/key"
    assert local_path("/mnt/data") == "/mnt/data"
    assert remote_uri("/mnt/minio/bucket") == "/mnt/minio/bucket"


def test_an_executor_sees_local_paths_and_reports_addresses(root, probe):
    def act(outputs: dict[str, Any]) -> None:
        [model] = outputs["model"]
        Path(model.uri, "weights").write_text("weights")
        model.set_string_custom_property("trained_on", probe.seen["inputs"]["examples"][0].uri)
        model.set_string_custom_property("remark", "no path")

    probe.action = act
    examples = {"name": "7", "uri": "minio://bucket/other/examples", "type": EXAMPLES, "metadata": {"span": 3}}
    report = called(
        root, inputs={"examples": examples}, outputs={"model": MODEL}, parameters={"epochs": 5, "rate": 0.5}
    )
    assert (root / "minio/bucket/run/model/weights").read_text() == "weights"
    [seen] = probe.seen["inputs"]["examples"]
    assert (seen.uri, seen.span) == (f"{root}/minio/bucket/other/examples", 3)
    assert probe.seen["properties"] == {"epochs": 5, "rate": 0.5}
    assert type(probe.seen["properties"]["epochs"]) is int
    assert set(report["artifacts"]) == {"model"}
    [model] = report["artifacts"]["model"]["artifacts"]
    assert model["uri"] == "minio://bucket/run/model"
    assert model["metadata"]["trained_on"] == "minio://bucket/other/examples"
    assert model["metadata"]["remark"] == "no path"


def test_what_a_run_is_told_takes_the_place_of_what_was_compiled(root, probe):
    compiled = {"custom_config": json.dumps({"epochs": 20, "hparams": {"width": 8}}), "target": 0.5}
    called(root, parameters={**compiled, "run_search_epochs": 5, "run_learning_rate": 0.1, "run_target": 0.25})
    properties = probe.seen["properties"]
    assert set(properties) == {"custom_config", "target"}
    assert json.loads(properties["custom_config"]) == {"epochs": 5, "hparams": {"width": 8, "learning_rate": 0.1}}
    assert properties["target"] == 0.25


@pytest.mark.parametrize(
    "lost",
    [
        {"instanceSchema": ""},
        {"schemaTitle": "system.Artifact"},
        {"schemaTitle": "system.Model"},
        {"schemaTitle": "Artifact"},  # without ML Metadata, where a type of TFX's was not kept
        {"schemaTitle": "Model"},
    ],
)
def test_types_that_the_launcher_lost_are_those_of_the_steps_own_specification(root, probe, lost):
    artifact = {"name": "1", "uri": "minio://bucket/x", "type": lost, "metadata": {"target": 0.5}}
    called(root, inputs={"structure": artifact}, types={"structure": STRUCTURE})
    [structure] = probe.seen["inputs"]["structure"]
    assert isinstance(structure, MorphStructure)
    assert structure.get_float_custom_property("target") == 0.5


def test_a_type_that_arrived_is_kept(root, probe):
    called(root, inputs={"any": {"uri": "minio://bucket/x", "type": MODEL}}, types={"any": EXAMPLES})
    assert probe.seen["inputs"]["any"][0].type_name == "Model"


def test_our_types_are_known_by_the_names_that_jobs_give_them():
    code = (
        "import morph_tfx.components, json\n"
        "from tfx.utils.import_utils import import_class_by_path as known\n"
        "print(known('morph_tfx.MorphStructure').TYPE_NAME)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300).stdout
    assert out.split()[-1] == "morph_tfx.MorphStructure"


def test_what_no_number_can_say_is_reported_as_text(root, probe):
    def act(outputs: dict[str, Any]) -> None:
        outputs["model"][0].set_float_custom_property("val_loss", math.nan)
        outputs["model"][0].set_float_custom_property("worst", math.inf)
        outputs["model"][0].set_float_custom_property("val_accuracy", 0.25)

    probe.action = act
    report = called(root, outputs={"model": MODEL, "model_metrics": {"schemaTitle": "system.Metrics"}})
    [model] = report["artifacts"]["model"]["artifacts"]
    assert (model["metadata"]["val_loss"], model["metadata"]["worst"]) == ("nan", "inf")
    [metrics] = report["artifacts"]["model_metrics"]["artifacts"]
    assert metrics == {"uri": "minio://bucket/run/model_metrics", "metadata": {"val_accuracy": 0.25}}


def test_the_report_of_a_structure_becomes_a_page_and_its_costs_figures(root, probe):
    def act(outputs: dict[str, Any]) -> None:
        [structure] = outputs["structure"]
        Path(structure.uri, "report.html").write_text("<html>report</html>")
        structure.set_float_custom_property("flops_fraction", 0.5)
        structure.set_int_custom_property("schema_version", 1)
        structure.set_string_custom_property("cost", "flops")

    probe.action = act
    views = {
        "structure_report": {"schemaTitle": "system.HTML"},
        "structure_metrics": {"schemaTitle": "system.Metrics"},
    }
    report = called(root, outputs={"structure": STRUCTURE, **views})
    assert set(probe.seen["outputs"]) == {"structure"}
    assert (root / "minio/bucket/run/structure_report").read_text() == "<html>report</html>"
    assert report["artifacts"]["structure_metrics"]["artifacts"][0]["metadata"] == {"flops_fraction": 0.5}
    assert report["artifacts"]["structure_report"]["artifacts"][0]["uri"] == "minio://bucket/run/structure_report"


def test_outputs_that_other_steps_take_as_parameters_are_reported_as_values(root, probe):
    def act(outputs: dict[str, Any]) -> None:
        outputs["words"][0].write("some words")

    probe.action = act
    text = {"instanceSchema": "title: tfx.String\ntype: object\n"}
    report = called(root, outputs={"words": text}, output_parameters=("words",))
    assert report["parameterValues"] == {"words": "some words"}


def test_an_output_that_is_no_value_cannot_become_a_parameter(root, probe, capsys):
    assert exit_code(root, outputs={"model": MODEL}, output_parameters=("model",)) == 1
    assert "The output 'model' is to become a parameter of another step, but it is Model" in capsys.readouterr().err


def test_what_the_user_can_mend_is_said_without_a_traceback(root, probe, capsys):
    def act(outputs: dict[str, Any]) -> None:
        raise MorphError("The split 'train' is empty.")

    probe.action = act
    assert exit_code(root, outputs={"model": MODEL}) == 1
    error = capsys.readouterr().err
    assert "tests.kubeflow.steps.Probe failed: The split 'train' is empty." in error
    assert "Traceback" not in error
    assert not (root / OUTPUT_FILE).exists()


def test_any_other_error_is_raised(root, probe):
    def act(outputs: dict[str, Any]) -> None:
        raise ZeroDivisionError

    probe.action = act
    with pytest.raises(ZeroDivisionError):
        exit_code(root, outputs={"model": MODEL})


@pytest.mark.parametrize(
    ("executor", "flags", "scheme", "stays"),
    [
        ("BeamProbe", ["--runner=DataflowRunner"], "gs", True),
        ("BeamProbe", ["--runner=DataflowRunner"], "minio", False),
        ("BeamProbe", ["--runner=DirectRunner"], "gs", False),
        ("BeamProbe", [], "gs", False),
        ("Probe", ["--runner=DataflowRunner"], "gs", False),
    ],
)
def test_workers_elsewhere_get_addresses_that_they_can_open(root, probe, monkeypatch, executor, flags, scheme, stays):
    from tfx.orchestration.portable import outputs_utils

    monkeypatch.setattr(outputs_utils, "make_output_dirs", lambda outputs: None)  # there is no gs:// here
    report = called(root, *flags, outputs={"model": MODEL}, scheme=scheme, executor=f"tests.kubeflow.steps.{executor}")
    address = f"{scheme}://bucket/run/model"
    assert report["artifacts"]["model"]["artifacts"][0]["uri"] == address
    [model] = probe.seen["outputs"]["model"]
    assert (model.uri == address) is stays


def test_beam_arguments_reach_executors_of_beam(root, probe):
    called(root, "--direct_num_workers=2", executor="tests.kubeflow.steps.BeamProbe")
    assert probe.seen["context"].beam_pipeline_args == ["--direct_num_workers=2"]


def test_example_gen_finds_the_newest_span_itself(root, probe):
    data = root / "data"
    for span in (1, 2):
        (data / f"span-{span}").mkdir(parents=True)
        (data / f"span-{span}" / "part.csv").write_text("a\n" * span)
    config = {"splits": [{"name": "train", "pattern": "span-{SPAN}/*.csv"}]}
    parameters = {"input_base": str(data), "input_config": json.dumps(config)}
    report = called(root, "--run_example_gen_driver", outputs={"examples": EXAMPLES}, parameters=parameters)
    assert json.loads(probe.seen["properties"]["input_config"])["splits"][0]["pattern"] == "span-2/*.csv"
    metadata = report["artifacts"]["examples"]["artifacts"][0]["metadata"]
    assert metadata["custom:span"] == 2
    assert "total_bytes:4" in metadata["input_fingerprint"]


def test_a_flag_that_is_missing_is_asked_for(capsys):
    with pytest.raises(SystemExit):
        entrypoint.main(["--executor_class_path", "x.Y"])
    assert "--json_serialized_invocation_args" in capsys.readouterr().err
