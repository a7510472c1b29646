"""Where the data steps run: the Apache Beam runner of the configuration, turned into the arguments that Beam takes.

TFX's data components (ExampleGen, StatisticsGen, Transform, Evaluator) are Beam pipelines. On one machine the direct
runner does, with one process or several; Dataflow, Flink and Spark take them to a cluster. Each runner has options that
it cannot do without; they are asked for here, before anything is submitted, by the names that Beam gives them.

Workers take longer to start than little data takes to compute, so a step can be kept out of them (`in_process`).
Transform is kept out of those on other machines: it calls the user's preprocessing_fn, which only processes on this one
can import (`transform`). There it runs in threads of its own process.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .section import Section

# For each runner: the options that it needs, then those that it may have.
_OPTIONS = {
    "direct": ((), ("workers",)),
    "dataflow": (
        ("project", "region", "temp_location"),
        ("workers", "machine_type", "service_account_email", "subnetwork", "sdk_container_image"),
    ),
    "flink": (("flink_master",), ("flink_version", "parallelism", "environment_type", "environment_config")),
    "spark": (("spark_master_url",), ("spark_version", "parallelism", "environment_type", "environment_config")),
}
_RUNNERS = {"direct": "DirectRunner", "dataflow": "DataflowRunner", "flink": "FlinkRunner", "spark": "SparkRunner"}


class BeamConfig(Section):
    """A Beam runner and its options."""

    runner: Literal["direct", "dataflow", "flink", "spark"] = Field(
        description="direct (this machine), dataflow, flink or spark", examples=["direct"]
    )
    in_process: tuple[Literal["ImportExampleGen", "CsvExampleGen", "StatisticsGen", "Transform", "Evaluator"], ...] = (
        Field(
            (),
            description="components whose steps stay in one process of their own, whatever the runner",
            examples=["[Evaluator]"],
        )
    )
    workers: int | None = Field(
        None,
        ge=0,
        description="direct: processes, 0 for one per core of the machine; dataflow: most machines",
        examples=[4],
    )
    project: str | None = Field(None, min_length=1, description="Google Cloud project", examples=["my-project"])
    region: str | None = Field(None, min_length=1, description="Google Cloud region", examples=["europe-west1"])
    temp_location: str | None = Field(
        None,
        pattern=r"^gs://[^/]+/.+",
        description="where Dataflow keeps files meanwhile",
        examples=["gs://bucket/tmp"],
    )
    machine_type: str | None = Field(None, min_length=1, description="Dataflow's machines", examples=["n2-standard-4"])
    service_account_email: str | None = Field(
        None, pattern=r"^[^@\s]+@[^@\s]+$", description="whom Dataflow's machines run as"
    )
    subnetwork: str | None = Field(None, min_length=1, description="subnetwork of Dataflow's machines")
    sdk_container_image: str | None = Field(
        None,
        min_length=1,
        description="image of Dataflow's workers, with morph-tfx[tfx]; needed for packages of your own",
    )
    flink_master: str | None = Field(
        None, pattern=r"^(?:https?://)?[^/\s]+:\d+$", description="Flink's REST address", examples=["flink:8081"]
    )
    flink_version: str | None = Field(
        None, pattern=r"^\d+\.\d+$", description="of the cluster, quoted", examples=["'1.17'"]
    )
    spark_master_url: str | None = Field(
        None,
        pattern=r"^(spark|k8s|mesos)://\S+$|^(yarn|local.*)$",
        description="Spark's master",
        examples=["spark://s:7077"],
    )
    spark_version: Literal["3"] | None = Field(None, description="of the cluster, quoted", examples=["'3'"])
    parallelism: int | None = Field(None, ge=1, description="how many workers share a stage", examples=[8])
    environment_type: Literal["DOCKER", "PROCESS", "EXTERNAL", "LOOPBACK"] | None = Field(
        None, description="how Flink or Spark start Python workers", examples=["EXTERNAL"]
    )
    environment_config: str | None = Field(
        None, min_length=1, description="for it: an image, a command or the address of a pool", examples=["pool:50000"]
    )

    @model_validator(mode="after")
    def _what_the_runner_takes(self) -> BeamConfig:
        needed, allowed = _OPTIONS[self.runner]
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            field = type(self).model_fields[missing[0]]
            example = f". For example: {missing[0]}: {field.examples[0]}" if field.examples else ""
            raise ValueError(f"runner {self.runner} needs {', '.join(map(repr, missing))}{example}")
        for name in sorted(self.model_fields_set - {"runner", "in_process", *needed, *allowed}):
            if getattr(self, name) is not None:
                owners = [runner for runner, options in _OPTIONS.items() if name in options[0] + options[1]]
                raise ValueError(f"{name!r} is an option of {' and '.join(owners)}, not of runner {self.runner}")
        if self.environment_type in ("DOCKER", "PROCESS", "EXTERNAL") and self.environment_config is None:
            raise ValueError(f"environment_type {self.environment_type} needs 'environment_config'")
        if self.environment_config is not None and self.environment_type in (None, "LOOPBACK"):
            raise ValueError("'environment_config' needs environment_type DOCKER, PROCESS or EXTERNAL")
        if self.runner == "dataflow" and self.workers == 0:
            raise ValueError("workers: 0 means one process per core, with runner direct only; at least 1 is expected")
        return self

    @property
    def arguments(self) -> tuple[str, ...]:
        """As Beam's command line takes them."""
        if self.runner == "direct":
            workers = 1 if self.workers is None else self.workers
            mode = "in_memory" if workers == 1 else "multi_processing"
            return (f"--direct_running_mode={mode}", f"--direct_num_workers={workers}")
        found = [f"--runner={_RUNNERS[self.runner]}"]
        for name in (name for names in _OPTIONS[self.runner] for name in names):
            if getattr(self, name) is not None:
                found.append(f"--{'max_num_workers' if name == 'workers' else name}={getattr(self, name)}")
        return tuple(found)

    def arguments_of(self, component: str) -> tuple[str, ...]:
        """What the steps of a component are given besides; of an argument given twice, Beam takes the later.

        Args:
            component: its class name. What `in_process` names stays in one thread of its process, and Transform, which
                calls the user's module file, in its process where other machines would run it.
        """
        if component in self.in_process:
            return ("--runner=DirectRunner", *DIRECT.arguments)
        if component == "Transform" and self.runner != "direct":
            # 0 threads: one per core.
            return ("--runner=DirectRunner", "--direct_running_mode=multi_threading", "--direct_num_workers=0")
        return ()


DIRECT = BeamConfig.model_validate({"runner": "direct"})
"""One process on this machine."""
