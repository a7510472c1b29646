"""An HTTP server for tests that answers as the Kubeflow Pipelines API does, and fails as networks and servers do.

Routes, methods and parameters are those of the published description (kubeflow/pipelines, backend/api/v2beta1/swagger).
Bodies are checked against the models that the SDK's client was generated with from that description: a field that they
do not have, or a value outside an enumeration, is refused with 400, as by the real server's JSON gateway. Names are
unique for pipelines, versions and experiments, and not for runs and recurring runs, as in the real one.

`server.fail(...)` says what happens to the next requests of a kind; `server.state` survives `stop` and `start`.
"""

from __future__ import annotations

import datetime
import email.parser
import email.policy
import functools
import json
import re
import socket
import ssl
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import kfp_server_api
import yaml

PREFIX = "/apis/v2beta1"
TOKEN = "very-secret-token"  # of those that are let in

Way = Literal["answer", "garbled", "lost", "cut", "hang", "late", "die", "die before"]
"""What goes wrong.

- `answer`: not executed, the status is answered.
- `garbled`: executed, and the answer is another one, with status 200: a login page, or half of it.
- `lost`: executed, then the connection is closed without an answer.
- `cut`: the connection is closed and nothing executed.
- `hang`: executed; the answer comes after `delay` seconds, too late.
- `late`: executed only after `delay` seconds, when the client has given up.
- `die`: executed, then the server stops without an answer; `die before`: the same, not executed.
"""


@dataclass
class Fault:
    method: str
    path: re.Pattern[str]
    way: Way
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay: float = 0.0
    times: float = 1


@dataclass(frozen=True)
class Request:
    """A request that was received."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class State:
    """What the server has stored, by id."""

    pipelines: dict[str, dict] = field(default_factory=dict)
    pipeline_versions: dict[str, dict] = field(default_factory=dict)
    experiments: dict[str, dict] = field(default_factory=dict)
    runs: dict[str, dict] = field(default_factory=dict)
    recurringRuns: dict[str, dict] = field(default_factory=dict)


class Refusal(Exception):
    """An error answer, with the code of gRPC that goes with it."""

    def __init__(self, status: int, code: int, message: str):
        super().__init__(message)
        self.status = status
        self.body = {"error": message, "code": code, "message": message, "details": []}


class KubeflowServer:
    """The server; a context manager that starts and stops it.

    Args:
        token, cookie: what a request must carry; 401 otherwise.
        multi_user: requests that list need a namespace.
        tls: a certificate and its key, as files.
        page: how many objects a page holds at most, whatever is asked for.
    """

    def __init__(
        self,
        token: str | None = None,
        cookie: str | None = None,
        multi_user: bool = False,
        tls: tuple[str, str] | None = None,
        page: int = 2,
    ):
        self.state = State()
        self.requests: list[Request] = []
        self.running = threading.Event()
        self.faults: list[Fault] = []
        self.token, self.cookie, self.multi_user, self.page = token, cookie, multi_user, page
        self._tls = tls
        self._port = 0
        self._lock = threading.RLock()
        self._clock = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> KubeflowServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self._port}"

    def start(self) -> None:
        """Listens, again on the same port after a stop."""
        if self.running.is_set():
            return
        outer = self

        class Handler(_Handler):
            kubeflow = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.running.set()
        serve = functools.partial(self._server.serve_forever, 0.01)
        threading.Thread(target=serve, daemon=True).start()

    def stop(self) -> None:
        """Listens no more; what is stored stays."""
        if self.running.is_set() and self._server is not None:
            self.running.clear()
            self._server.shutdown()
            self._server.server_close()

    def fail(
        self,
        way: Way | int,
        method: str = ".*",
        path: str = ".*",
        times: float = 1,
        delay: float = 0.0,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> None:
        """The next `times` requests whose method and path match fail in this way; a number is a status to answer."""
        status = way if isinstance(way, int) else 0
        kind: Way = "answer" if isinstance(way, int) else way
        self.faults.append(Fault(method, re.compile(path), kind, status, headers or {}, body, delay, times))

    def received(self, method: str, path: str) -> list[Request]:
        """The requests so far of this kind."""
        return [one for one in self.requests if one.method == method and re.search(path, one.path)]

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and re.fullmatch(fault.method, method) and fault.path.search(path):
                    fault.times -= 1
                    return fault
        return None

    def execute(self, request: Request) -> dict:
        """Does what a request asks for, and returns the answer."""
        with self._lock:
            self._check_credentials(request)
            for method, pattern, function in ROUTES:
                match = pattern.fullmatch(request.path)
                if method == request.method and match:
                    return function(self, request, **match.groupdict())
            raise Refusal(404, 5, f"Not Found: {request.path}")

    def store(self, kind: dict[str, dict], id_name: str, body: dict, **more: Any) -> dict:
        self._clock += datetime.timedelta(seconds=1)
        stored = {**body, id_name: str(uuid.uuid4()), "created_at": self._clock.isoformat(), **more}
        kind[stored[id_name]] = stored
        return stored

    def _check_credentials(self, request: Request) -> None:
        headers = request.headers
        if self.token is not None and headers.get("authorization") != f"Bearer {self.token}":
            # A careless server that repeats what it was sent.
            raise Refusal(401, 16, f"Unauthenticated: {headers.get('authorization')} is not valid")
        if self.cookie is not None and headers.get("cookie") != self.cookie:
            raise Refusal(401, 16, f"Unauthenticated: {headers.get('cookie')}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for an acknowledgement
    kubeflow: KubeflowServer

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        raw = self.rfile.read(length)
        url = urllib.parse.urlsplit(self.path)
        request = Request(
            self.command,
            url.path,
            dict(urllib.parse.parse_qsl(url.query)),
            {name.lower(): value for name, value in self.headers.items()},
            _body(self.headers.get("content-type") or "", raw),
        )
        server = self.kubeflow
        if not server.running.is_set():
            return self._hang_up()
        server.requests.append(request)
        fault = server.fault_for(request.method, request.path)
        if fault is None:
            return self._answer(*_executed(server, request))
        if fault.way == "answer":
            body = fault.body if fault.body is not None else _json(Refusal(fault.status, 13, "injected").body)
            return self._answer(fault.status, body, fault.headers)
        if fault.way == "garbled":
            status, body = _executed(server, request)
            return self._answer(status, fault.body if fault.body is not None else body[: len(body) // 2], fault.headers)
        if fault.way == "late":
            time.sleep(fault.delay)
        if fault.way in ("lost", "hang", "late", "die"):
            _executed(server, request)
        if fault.way == "hang":
            time.sleep(fault.delay)
        if fault.way.startswith("die"):
            server.stop()
        return self._hang_up()

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _serve

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def _executed(server: KubeflowServer, request: Request) -> tuple[int, bytes]:
    try:
        return 200, _json(server.execute(request))
    except Refusal as refusal:
        return refusal.status, _json(refusal.body)


def _json(body: dict) -> bytes:
    return json.dumps(body).encode()


def _body(kind: str, raw: bytes) -> Any:
    """The JSON of a body, or the text of the one file that a form uploads."""
    if not kind.startswith("multipart/"):
        return json.loads(raw) if raw else {}
    parser = email.parser.BytesParser(policy=email.policy.default)
    form = parser.parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + raw)
    parts = [part for part in form.iter_parts() if part.get_param("name", header="content-disposition") == "uploadfile"]
    [part] = parts
    return part.get_payload(decode=True).decode()


def _checked(model: str, body: dict) -> None:
    """Refuses what the API's description does not have."""
    kind = getattr(kfp_server_api, model)
    unknown = set(body) - set(kind.attribute_map.values())
    if unknown:
        raise Refusal(400, 3, f"unknown field {sorted(unknown)} in {model}")
    for name, key in kind.attribute_map.items():
        inner = kind.openapi_types[name]
        if key in body and hasattr(kfp_server_api, inner) and isinstance(body[key], dict):
            _checked(inner, body[key])
        elif key in body and hasattr(kfp_server_api, inner):
            allowed = getattr(kfp_server_api, inner).allowable_values
            if body[key] not in allowed:
                raise Refusal(400, 3, f"{body[key]!r} is no {inner}: {allowed}")


Route = Callable[..., dict]
ROUTES: list[tuple[str, re.Pattern[str], Route]] = []


def _route(method: str, path: str) -> Callable[[Route], Route]:
    def register(function: Route) -> Route:
        ROUTES.append((method, re.compile(PREFIX + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/:]+)", path)), function))
        return function

    return register


def _listed(server: KubeflowServer, request: Request, key: str, found: list[dict]) -> dict:
    """A page of a list, filtered and counted."""
    query = request.query
    for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
        if set(predicate) != {"operation", "key", "string_value"} or predicate["operation"] != "EQUALS":
            raise Refusal(400, 3, f"invalid filter: {predicate}")
        found = [one for one in found if one.get(predicate["key"]) == predicate["string_value"]]
    start = int(query.get("page_token") or 0)
    end = start + min(server.page, int(query.get("page_size") or server.page))
    page = {key: found[start:end], "total_size": len(found)}
    return {**page, "next_page_token": str(end)} if end < len(found) else page


def _in_namespace(server: KubeflowServer, request: Request, found: list[dict]) -> list[dict]:
    namespace = request.query.get("namespace")
    if server.multi_user and not namespace and not request.query.get("experiment_id"):
        raise Refusal(400, 3, "Invalid input error: a namespace is required in multi-user mode")
    return [one for one in found if not namespace or one.get("namespace", namespace) == namespace]


def _only(stored: dict[str, dict], identifier: str, kind: str) -> dict:
    if identifier not in stored:
        raise Refusal(404, 5, f"{kind} {identifier} not found")
    return stored[identifier]


def _unique(stored: dict[str, dict], name: str, kind: str, **same: str) -> None:
    for one in stored.values():
        if one["display_name"] == name and all(one.get(key) == value for key, value in same.items()):
            raise Refusal(409, 6, f"Already exist error: the {kind} {name} exists. Please specify a new name.")


@_route("GET", "/experiments")
def _list_experiments(server: KubeflowServer, request: Request) -> dict:
    found = _in_namespace(server, request, list(server.state.experiments.values()))
    return _listed(server, request, "experiments", found)


@_route("POST", "/experiments")
def _create_experiment(server: KubeflowServer, request: Request) -> dict:
    _checked("V2beta1Experiment", request.body)
    _unique(server.state.experiments, request.body["display_name"], "experiment")
    return server.store(server.state.experiments, "experiment_id", request.body, storage_state="AVAILABLE")


@_route("GET", "/pipelines")
def _list_pipelines(server: KubeflowServer, request: Request) -> dict:
    found = _in_namespace(server, request, list(server.state.pipelines.values()))
    return _listed(server, request, "pipelines", found)


@_route("POST", "/pipelines")
def _create_pipeline(server: KubeflowServer, request: Request) -> dict:
    _checked("V2beta1Pipeline", request.body)
    _unique(server.state.pipelines, request.body["display_name"], "pipeline")
    return server.store(server.state.pipelines, "pipeline_id", request.body)


@_route("GET", "/pipelines/{pipeline_id}/versions")
def _list_versions(server: KubeflowServer, request: Request, pipeline_id: str) -> dict:
    _only(server.state.pipelines, pipeline_id, "Pipeline")
    found = [one for one in server.state.pipeline_versions.values() if one["pipeline_id"] == pipeline_id]
    return _listed(server, request, "pipeline_versions", found)


@_route("POST", "/pipelines/upload_version")
def _upload_version(server: KubeflowServer, request: Request) -> dict:
    pipeline_id, name = request.query["pipelineid"], request.query["name"]
    _only(server.state.pipelines, pipeline_id, "Pipeline")
    spec = next(iter(yaml.safe_load_all(request.body)))
    if not isinstance(spec, dict) or spec.get("schemaVersion") != "2.1.0":
        raise Refusal(400, 3, "Invalid input error: unknown template format")
    _unique(server.state.pipeline_versions, name, "version", pipeline_id=pipeline_id)
    body = {"pipeline_id": pipeline_id, "display_name": name, "pipeline_spec": spec}
    return server.store(server.state.pipeline_versions, "pipeline_version_id", body)


def _check_reference(server: KubeflowServer, body: dict) -> None:
    reference = body["pipeline_version_reference"]
    version = _only(server.state.pipeline_versions, reference["pipeline_version_id"], "Version")
    if version["pipeline_id"] != reference["pipeline_id"]:
        raise Refusal(400, 3, "the version is not of this pipeline")
    _only(server.state.experiments, body["experiment_id"], "Experiment")


@_route("GET", "/runs")
def _list_runs(server: KubeflowServer, request: Request) -> dict:
    found = _in_namespace(server, request, list(server.state.runs.values()))
    experiment = request.query.get("experiment_id")
    found = [one for one in found if experiment in (None, one["experiment_id"])]
    return _listed(server, request, "runs", found)


@_route("POST", "/runs")
def _create_run(server: KubeflowServer, request: Request) -> dict:
    _checked("V2beta1Run", request.body)
    _check_reference(server, request.body)
    return server.store(server.state.runs, "run_id", request.body, state="PENDING")


@_route("POST", "/runs/{run_id}:terminate")
def _terminate_run(server: KubeflowServer, request: Request, run_id: str) -> dict:
    _only(server.state.runs, run_id, "Run")["state"] = "CANCELING"
    return {}


@_route("DELETE", "/runs/{run_id}")
def _delete_run(server: KubeflowServer, request: Request, run_id: str) -> dict:
    _only(server.state.runs, run_id, "Run")
    del server.state.runs[run_id]
    return {}


@_route("GET", "/recurringruns")
def _list_recurring_runs(server: KubeflowServer, request: Request) -> dict:
    found = _in_namespace(server, request, list(server.state.recurringRuns.values()))
    return _listed(server, request, "recurringRuns", found)


@_route("POST", "/recurringruns")
def _create_recurring_run(server: KubeflowServer, request: Request) -> dict:
    body = request.body
    _checked("V2beta1RecurringRun", body)
    _check_reference(server, body)
    if not 1 <= int(body.get("max_concurrency", 0)) <= 10:
        raise Refusal(400, 3, "The max concurrency of a recurring run must be at least 1 and at most 10")
    if len(body["trigger"]["cron_schedule"]["cron"].split()) != 6:
        raise Refusal(400, 3, "Schedule cron is not a supported format")
    enabled = "ENABLED" if body["mode"] == "ENABLE" else "DISABLED"
    # The real server fills in its own account, too.
    account = body.get("service_account") or "pipeline-runner"
    more = {"status": enabled, "service_account": account}
    return server.store(server.state.recurringRuns, "recurring_run_id", body, **more)


@_route("POST", "/recurringruns/{recurring_run_id}:enable")
def _enable(server: KubeflowServer, request: Request, recurring_run_id: str) -> dict:
    _only(server.state.recurringRuns, recurring_run_id, "Job")["status"] = "ENABLED"
    return {}


@_route("POST", "/recurringruns/{recurring_run_id}:disable")
def _disable(server: KubeflowServer, request: Request, recurring_run_id: str) -> dict:
    _only(server.state.recurringRuns, recurring_run_id, "Job")["status"] = "DISABLED"
    return {}


@_route("DELETE", "/recurringruns/{recurring_run_id}")
def _delete(server: KubeflowServer, request: Request, recurring_run_id: str) -> dict:
    _only(server.state.recurringRuns, recurring_run_id, "Job")
    del server.state.recurringRuns[recurring_run_id]
    return {}
