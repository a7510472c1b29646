"""What open-source Kubeflow cannot run is refused by name before anything is written; the rest is made to run there."""

import re

import pytest
from tfx import v1 as tfx
from tfx.components.transform.executor import Executor as SomeExecutor
from tfx.dsl.component.experimental.container_component import create_container_component
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types.component_spec import ComponentSpec

from morph_core import MorphError
from morph_tfx.pipelines.kubeflow import job

MODEL = tfx.types.standard_artifacts.Model


def spec_of(*nodes, root: str = "gs://bucket/root", beam: tuple[str, ...] = ()) -> dict:
    """The job of these nodes."""
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="small", pipeline_root=root, components=list(nodes), beam_pipeline_args=list(beam)
    )
    return job.compiled(pipeline, "image:1")


def importer() -> tfx.dsl.Importer:
    return tfx.dsl.Importer(source_uri="gs://bucket/model", artifact_type=MODEL).with_id("Import")


def example_gen(**arguments) -> tfx.components.ImportExampleGen:
    return tfx.components.ImportExampleGen(**{"input_base": "gs://bucket/data", **arguments})


class Nothing(ComponentSpec):
    PARAMETERS = {}  # noqa: RUF012  TFX's own form
    INPUTS = {}  # noqa: RUF012
    OUTPUTS = {}  # noqa: RUF012


def node(spec: executor_spec.ExecutorSpec, name: str = "Odd") -> base_component.BaseComponent:
    """A component that runs by this."""

    class Odd(base_component.BaseComponent):
        SPEC_CLASS = Nothing
        EXECUTOR_SPEC = spec

    return Odd(spec=Nothing()).with_id(name)


def of_main() -> type:
    return type("Executor", (SomeExecutor,), {"__module__": "__main__"})


REFUSED = {
    "InfraValidator": (
        lambda: tfx.components.InfraValidator(model=importer().outputs["result"], serving_spec=tfx.proto.ServingSpec()),
        "InfraValidator (InfraValidator) cannot run on Kubeflow Pipelines v2",
        "Leave it out of the job",
    ),
    "Resolver": (
        lambda: tfx.dsl.Resolver(
            strategy_class=tfx.dsl.experimental.LatestBlessedModelStrategy, model=tfx.dsl.Channel(type=MODEL)
        ).with_id("Latest"),
        "Latest (Resolver) cannot run on open-source Kubeflow",
        "tfx.dsl.Importer(source_uri=...)",
    ),
    "a name with an underscore": (
        lambda: example_gen().with_id("my_data.gen"),
        "The step 'my_data.gen' has a name that Kubeflow's workflows do not take",
        "with_id('my-data-gen')",
    ),
    "an importer of a path": (
        lambda: tfx.dsl.Importer(source_uri="/mnt/model", artifact_type=MODEL).with_id("Old"),
        "Old (Importer) names /mnt/model, and Kubeflow imports from object stores alone",
        "ImportedModel(path=...)",
    ),
    "an importer of another store": (
        lambda: tfx.dsl.Importer(source_uri="hdfs://host/model", artifact_type=MODEL).with_id("Old"),
        "Old (Importer) names hdfs://host/model",
        "gs://, s3:// or minio://BUCKET/KEY",
    ),
    "an importer of a whole bucket": (
        lambda: tfx.dsl.Importer(source_uri="gs://bucket/", artifact_type=MODEL).with_id("Old"),
        "Old (Importer) names gs://bucket/",
        "expected an address below a bucket",
    ),
    "another kind of executor": (
        lambda: node(executor_spec.ExecutorContainerSpec(image="x", command=["y"])),
        "Odd (Odd) runs by ExecutorContainerSpec, which cannot be compiled for Kubeflow",
        "give it an executor class",
    ),
    "an executor of the script": (
        lambda: node(executor_spec.ExecutorClassSpec(of_main())),
        "The executor of Odd (Odd) is defined in the script that compiles the job",
        "Move the component into a module",
    ),
    "data behind minio": (
        lambda: example_gen(input_base="minio://bucket/data"),
        "ImportExampleGen: the data is read at a minio:// address",
        "Give a gs:// address, or a path on a volume",
    ),
    "pushing to minio": (
        lambda: tfx.components.Pusher(
            model=importer().outputs["result"],
            push_destination=tfx.proto.PushDestination(
                filesystem=tfx.proto.PushDestination.Filesystem(base_directory="minio://bucket/out")
            ),
        ),
        "Pusher: the model is pushed at a minio:// address",
        "Give a gs:// address, or a path on a volume",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_run_is_refused_by_name_with_advice(case):
    make, message, advice = REFUSED[case]
    with pytest.raises(MorphError, match=f"{re.escape(message)}.*{re.escape(advice)}"):
        spec_of(make())


def test_workers_of_beam_elsewhere_need_artifacts_that_they_can_read():
    minio, dataflow = "minio://bucket/root", ("--runner=DataflowRunner",)
    with pytest.raises(MorphError, match=r"Beam's workers .* cannot read .* minio://bucket/root.*gs:// address"):
        spec_of(example_gen(), root=minio, beam=dataflow)
    spec_of(example_gen(), beam=dataflow)
    spec_of(example_gen(), root=minio, beam=("--runner=DirectRunner", "--direct_num_workers=2"))


def test_an_importer_in_a_condition_is_refused():
    spec = spec_of(importer())
    spec["root"]["dag"]["tasks"]["Import"]["triggerPolicy"] = {"condition": "true"}
    with pytest.raises(MorphError, match=r"Import \(Importer\) stands in a Cond.*Move it out"):
        job.adapt(spec)


def test_an_output_that_has_the_name_of_a_view_is_refused():
    spec = spec_of(example_gen())
    outputs = spec["components"]["ImportExampleGen"]["outputDefinitions"]["artifacts"]
    outputs["model"] = {"artifactType": {"instanceSchema": "title: tfx.Model"}}
    outputs["model_metrics"] = outputs["examples"]
    with pytest.raises(MorphError, match="The output 'model_metrics' has the name that this job uses"):
        job.adapt(spec)


def test_every_executor_runs_behind_the_entrypoint_and_example_gen_with_its_driver_and_without_cache():
    data = example_gen()
    spec = spec_of(data, tfx.components.StatisticsGen(examples=data.outputs["examples"]))
    job.adapt(spec)
    containers = {name: executor["container"] for name, executor in spec["deploymentSpec"]["executors"].items()}
    assert {tuple(container["command"]) for container in containers.values()} == {job.COMMAND}
    assert containers["ImportExampleGen_executor"]["args"][0] == "--run_example_gen_driver"
    assert "--run_example_gen_driver" not in containers["StatisticsGen_executor"]["args"]
    assert "lifecycle" not in containers["ImportExampleGen_executor"]
    assert spec["root"]["dag"]["tasks"]["ImportExampleGen"]["cachingOptions"] == {}


def test_defaults_of_runtime_parameters_travel_with_the_job():
    base = tfx.dsl.experimental.RuntimeParameter(name="data", ptype=str, default="gs://bucket/data")
    inputs = spec_of(example_gen(input_base=base))["root"]["inputDefinitions"]["parameters"]
    assert inputs == {"data": {"parameterType": "STRING", "defaultValue": "gs://bucket/data"}}


def test_a_container_of_the_users_own_stays_as_it_is():
    own = create_container_component(
        name="Own", image="own:1", command=["train"], inputs={}, outputs={"model": MODEL}, parameters={}
    )
    spec = spec_of(own())  # pyright: ignore[reportCallIssue]
    job.adapt(spec)
    assert spec["deploymentSpec"]["executors"]["Own_executor"]["container"] == {"image": "own:1", "command": ["train"]}
    assert set(spec["components"]["Own"]["outputDefinitions"]["artifacts"]) == {"model"}
