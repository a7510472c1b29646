"""TFX's local runner with an account of every step. Importing this imports TFX.

`LocalDagRunner` says what it does through logging only, in the middle of everything else that TFX logs, and not whether
a step ran or came from the cache. `StepRunner` is the same loop over the same launchers; after each node it asks ML
metadata what became of it.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfx.dsl.compiler import constants
from tfx.orchestration import metadata
from tfx.orchestration.local import local_dag_runner, runner_utils
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.orchestration.portable.mlmd import execution_lib

from ..account import duration
from .result import Step

_RESOLVER = "tfx.dsl.components.common.resolver.Resolver"


class StepRunner(local_dag_runner.LocalDagRunner):
    """LocalDagRunner, which runs a pipeline in this process, node after node, with an account of it.

    Args:
        say: receives each line of the account.
        about: a few words on some of the nodes, by node id.
        findings: what there is to say about a finished step, one line each.
    """

    def __init__(self, say: Callable[[str], None], about: Mapping[str, str], findings: Callable[[Step], Sequence[str]]):
        super().__init__()
        self.steps: list[Step] = []
        self._say = say
        self._about = about
        self._findings = findings

    def run_with_ir(self, pipeline: Any, run_options: Any = None, **kwargs: Any) -> None:
        """Runs the compiled pipeline; `steps` then holds what became of each node. A partial run has no account."""
        self.steps.clear()
        if run_options is not None:
            super().run_with_ir(pipeline, run_options, **kwargs)
            return
        runtime_parameter_utils.substitute_runtime_parameter(
            pipeline, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: datetime.datetime.now().isoformat()}
        )
        deployment = runner_utils.extract_local_deployment_config(pipeline)
        kind = deployment.metadata_connection_config.WhichOneof("connection_config")
        connection = getattr(deployment.metadata_connection_config, kind)
        nodes = [node.pipeline_node for node in pipeline.nodes]
        for number, node in enumerate(nodes, 1):
            node_id = node.node_info.id
            about = self._about.get(node_id)
            self._say(f"[{number}/{len(nodes)}] {node_id}" + (f" ({about})" if about else ""))
            start = time.monotonic()
            executed = launcher.Launcher(
                pipeline_node=node,
                mlmd_connection=metadata.Metadata(connection),
                pipeline_info=pipeline.pipeline_info,
                pipeline_runtime_spec=pipeline.runtime_spec,
                executor_spec=runner_utils.extract_executor_spec(deployment, node_id),
                custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
            ).launch()
            step = self._account(node, executed, connection, time.monotonic() - start)
            self.steps.append(step)
            indent = " " * len(f"[{number}/{len(nodes)}] ")
            for line in [*_summary(step), *self._findings(step)]:
                self._say(indent + line)

    def _account(self, node: Any, executed: Any, connection: Any, seconds: float) -> Step:
        node_id = node.node_info.id
        if executed is None or executed.execution_id is None:
            raise RuntimeError(
                f"{node_id} was not executed: the inputs it needs are missing. --verbose shows TFX's log."
            )
        with metadata.Metadata(connection) as handle:
            [execution] = handle.store.get_executions_by_id([executed.execution_id])
            outputs = execution_lib.get_output_artifacts(handle, execution.id)
        # TFX publishes a node as failed, without raising, when its inputs cannot be resolved.
        if not execution_lib.is_execution_successful(execution):
            state = execution.State.Name(execution.last_known_state)
            raise RuntimeError(
                f"{node_id} ended as {state}: its inputs could not be resolved. --verbose shows TFX's log."
            )
        if node.node_info.type.name == _RESOLVER:
            return Step(node_id, "looked up", seconds, outputs)
        cached = execution.last_known_state == execution.CACHED
        return Step(node_id, "cached" if cached else "ran", seconds, outputs)


def _summary(step: Step) -> list[str]:
    if step.state == "cached":
        return ["from the cache: its inputs have not changed"]
    if step.state == "looked up":  # takes no time; what it found is the finding
        return []
    return [f"done in {duration(step.seconds)}"]
