"""Beam's worker processes on this machine: a step ends when one of them does, instead of waiting for it for ever.

The kernel kills a process when memory runs out, and it takes the largest: a worker. Beam's runner notices that its
worker has ended, and says so in a thread that nobody listens to, while it goes on waiting for the worker's answer. Here
the answer is given in its place: an error.
"""

from __future__ import annotations

import threading
from typing import Any

from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.portability.local_job_service import SubprocessSdkWorker

WORKER_DIED = "A worker process of Beam died"
"""How the error begins that a step ends with."""

_Handler: Any = worker_handlers.SubprocessSdkWorkerHandler  # a decorator without types hides that it is a class


class WatchedWorker(_Handler):
    """Beam's handler of one worker process, which answers for a worker that has died."""

    def start_worker(self) -> None:
        self.worker = SubprocessSdkWorker(
            self._worker_command_line, self.control_address, self.provision_info, self.worker_id
        )
        self.worker_thread = threading.Thread(name="run_worker", target=self._run)
        self.worker_thread.start()

    def stop_worker(self) -> None:
        # One that was still starting when all were told to end would wait for a first request, and be waited for.
        self.control_conn.push(worker_handlers.BeamFnControlServicer._DONE_MARKER)
        super().stop_worker()

    def _run(self) -> None:
        try:
            self.worker.run()
        except RuntimeError as error:
            _answer_for(self.control_conn, f"{WORKER_DIED}: {error}")


def watch_workers() -> None:
    """Has Beam use `WatchedWorker` from here on."""
    register: Any = worker_handlers.WorkerHandler.register_environment
    register(python_urns.SUBPROCESS_SDK, bytes)(WatchedWorker)


def _answer_for(connection: Any, what: str) -> None:
    """Answers all that a worker is asked, and was asked, with an error."""
    ask = connection.push

    def answered(request: Any) -> Any:
        future = ask(request)
        if future is not None:  # None: a request to end
            future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=request.instruction_id, error=what))
        return future

    connection.push = answered
    for number, future in list(connection._futures_by_id.items()):
        future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=number, error=what))
