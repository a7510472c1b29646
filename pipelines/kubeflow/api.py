"""Calls to the Kubeflow Pipelines API (v2beta1) that survive a bad network and create nothing twice.

The requests are made by kfp's generated client (`kfp_server_api`), the part of the SDK below `kfp.Client`; the latter
has no time-outs, prints, and takes 25 s to report a missing credential. Around each call: a time-out; back-off for
answers that may be better the next time (429, 5xx, a lost connection), within a bound; one message for those that will
not (401, 404, ...). A request that creates something is preceded by a look for it, again before each repetition: a
request that timed out may have been executed all the same.
"""

from __future__ import annotations

import json
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from morph_core import MorphError

from ..account import Say
from ..config.location import without_password
from .answers import Conflict, Gone, NotTheApi, Transient, refusal, without_secret
from .credentials import HOW_TO, Credential

try:
    import kfp_server_api
    import tenacity
    import urllib3
except ModuleNotFoundError as error:
    raise MorphError(
        f"Talking to Kubeflow Pipelines needs {error.name}, which is not installed. Install it with: "
        "pip install 'morph-tfx[tfx,kubeflow]'"
    ) from error

Found = TypeVar("Found")

_PAGE = 100  # objects asked for at a time
_CONNECT_SECONDS = 10.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0  # seconds between attempts: 1, 2, 4, ... and a jitter of up to 1
_LONGEST_RETRY_AFTER = 120.0  # seconds that a server may ask us to wait
_UNREADABLE = "its answer cannot be read: not the JSON that is expected"
_AGAIN = "The same command may be given again later; nothing is created twice."


@dataclass(frozen=True)
class Connection:
    """Where the API is and how to reach it.

    Args:
        endpoint: the API's address, without /apis: `https://kubeflow.example.com/pipeline`.
        namespace: the user's namespace where Kubeflow has several users; None where it has not.
        credential: what authenticates us, or None.
        ca_file: certificates (PEM) to trust instead of the public ones.
        timeout: seconds to wait for an answer.
        attempts: how often a request is made, at most.
    """

    endpoint: str
    namespace: str | None = None
    credential: Credential | None = None
    ca_file: str | None = None
    timeout: float = 60.0
    attempts: int = 6


class KubeflowApi:
    """One connection. `experiments`, `pipelines`, `uploads`, `recurring_runs` and `runs` are the generated services.

    Args:
        connection: where the API is.
        say: receives a line before each wait.
        sleep: waits that many seconds.
    """

    def __init__(self, connection: Connection, say: Say = print, sleep: Callable[[float], None] = time.sleep):
        endpoint = connection.endpoint.rstrip("/")
        url = _address(endpoint)
        if url is None or not url.hostname or "@" in url.netloc or url.query or url.fragment:
            raise MorphError(
                f"endpoint: expected the address of the Kubeflow Pipelines API, such as "
                f"https://kubeflow.example.com/pipeline, got {without_password(endpoint)!r}."
            )
        self.endpoint = endpoint.removesuffix("/apis/v2beta1")
        self.namespace = connection.namespace
        self.say = say
        self._connection = connection
        self._sleep = sleep
        configuration: Any = kfp_server_api.Configuration()
        configuration.host = self.endpoint
        configuration.ssl_ca_cert = connection.ca_file
        configuration.retries = False  # ours look before they repeat; and a redirect to a login page is not followed
        if not _is_local(url.hostname) and not urllib.request.proxy_bypass(url.hostname):
            configuration.proxy = urllib.request.getproxies().get(url.scheme)
        if connection.ca_file is not None:
            try:
                ssl.create_default_context(cafile=connection.ca_file)
            except OSError as error:
                raise MorphError(
                    f"ca_file: cannot read certificates from {connection.ca_file}: {error.strerror or error}."
                ) from error
        self._client = kfp_server_api.ApiClient(configuration)
        self.experiments = kfp_server_api.ExperimentServiceApi(self._client)
        self.pipelines = kfp_server_api.PipelineServiceApi(self._client)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(self._client)
        self.recurring_runs = kfp_server_api.RecurringRunServiceApi(self._client)
        self.runs = kfp_server_api.RunServiceApi(self._client)

    @property
    def scope(self) -> dict[str, str]:
        """What a request for something of the user's own says besides: the namespace, where Kubeflow has several."""
        return {"namespace": self.namespace} if self.namespace else {}

    def call(self, what: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Makes a request that may be repeated, one that reads or that sets a state.

        Args:
            what: what the request does, for messages: "list the schedules".
            function: a method of one of the services, called with the arguments and a time-out.

        Raises:
            MorphError: refused, or no good answer within the bound.
        """
        for attempt in self._attempts(what):
            with attempt:
                return self._once(what, function, *arguments, **named)
        raise AssertionError("the attempts end in a result or an error")

    def each(
        self, what: str, function: Callable[..., Any], field: str, name: str | None = None, **scope: str
    ) -> Iterator[Any]:
        """The objects of all pages of a list.

        Args:
            what: as for `call`.
            function: a method of one of the services that lists objects.
            field: of its answer, with the objects.
            name: only those that are called so.
            scope: further arguments of the request.

        Raises:
            MorphError: as `call`.
        """
        if name is not None:
            predicate = {"operation": "EQUALS", "key": "display_name", "string_value": name}
            scope = {**scope, "filter": json.dumps({"predicates": [predicate]})}
        token = ""
        while True:
            page = self.call(what, function, page_size=_PAGE, page_token=token, **scope)
            # A server that does not know the filter must not make us take another object for ours.
            yield from (one for one in getattr(page, field) or () if name is None or one.display_name == name)
            token = page.next_page_token
            if not token:
                return

    def remove(self, what: str, function: Callable[..., Any], *arguments: Any) -> None:
        """As `call`, for a deletion: what is gone already has been deleted."""
        try:
            self.call(what, function, *arguments)
        except Gone:
            self.say(f"{what}: it is gone already.")

    def create(
        self,
        what: str,
        find: Callable[[], Found | None],
        function: Callable[..., Any],
        *arguments: Any,
        key: str,
        again: str = _AGAIN,
        **named: Any,
    ) -> tuple[Found, bool]:
        """Creates an object unless it is there, looking for it before each request.

        Args:
            what: what the request does, for messages: "create the experiment 'nightly'".
            find: returns the object, or None where there is none yet.
            function: a method of one of the services, called with the arguments and a time-out.
            key: attribute of the object that a good answer gives a value to: its id.
            again: what to do when it is not known whether it was created.

        Returns:
            What `find` found or `function` made, and whether it was made by this call.

        Raises:
            MorphError: refused, or no good answer within the bound.
        """
        made = False
        for attempt in self._attempts(what, again):
            with attempt:
                try:
                    found = find()
                except MorphError as error:
                    if not made:
                        raise
                    raise MorphError(
                        f"It is not known whether the request to {what} was executed. {again} {error}"
                    ) from error
                if found is not None:
                    return found, made
                made = True  # if the next look finds it: the request was executed, though its answer was lost
                try:
                    created = self._once(what, function, *arguments, **named)
                    if getattr(created, key, None) is None:
                        raise Transient(_UNREADABLE)
                    return created, True
                except NotTheApi as error:
                    # A login page or a proxy's, after the looks before it were answered by the API.
                    raise Transient(str(error).rstrip(".")) from None
                except Conflict as conflict:
                    found = find()
                    if found is not None:
                        return found, False
                    raise MorphError(f"Kubeflow Pipelines cannot {what}: {conflict}") from None
        raise AssertionError("the attempts end in a result or an error")

    def _attempts(self, what: str, again: str = _AGAIN) -> Iterator[Any]:
        start = time.monotonic()

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = getattr(error, "retry_after", 0.0)
            backoff = tenacity.wait_exponential_jitter(_FIRST_WAIT, _LONGEST_WAIT)(state)
            return max(backoff, min(asked, _LONGEST_RETRY_AFTER))

        def before_sleep(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            seconds = state.next_action.sleep if state.next_action else 0.0
            self.say(f"To {what}: {error}. Trying again in {seconds:.0f} s ...")

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Transient),
            stop=tenacity.stop_after_attempt(self._connection.attempts),
            wait=wait,
            sleep=self._sleep,
            before_sleep=before_sleep,
        )
        try:
            yield from retrying
        except tenacity.RetryError as error:
            raise MorphError(
                f"Kubeflow Pipelines at {self.endpoint} did not {what}, asked {self._connection.attempts} times within "
                f"{time.monotonic() - start:.0f} s. The last time: {error.last_attempt.exception()}. {again}"
            ) from None

    def _once(self, what: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """One request; its failure as one of our exceptions. None is chained: theirs hold the answer's headers."""
        credential = self._connection.credential
        if credential is not None:
            self._client.set_default_header(*credential.header())
        self._client.last_response = None
        timeout = (min(_CONNECT_SECONDS, self._connection.timeout), self._connection.timeout)
        broken: Exception | None = None
        result = None
        try:
            result = function(*arguments, _request_timeout=timeout, **named)
        except kfp_server_api.ApiException as error:
            raise refusal(what, error, self.endpoint, credential) from None
        except urllib3.exceptions.HTTPError as error:
            raise Transient(without_secret(_reason(error, self._connection.timeout), credential)) from None
        except (AttributeError, TypeError, ValueError) as error:
            # The generated client stumbles over answers that are no JSON, and over its own report of TLS errors.
            if isinstance(error.__context__, kfp_server_api.ApiException):
                raise refusal(what, error.__context__, self.endpoint, credential) from None
            broken = error
        response = self._client.last_response
        kind = response.getheader("content-type") or "" if response is not None else ""
        if response is not None and "json" not in kind:
            raise NotTheApi(
                f"{self.endpoint} is not the Kubeflow Pipelines API: it answers "
                f"{kind or 'without a content type'} where JSON is expected. Behind Kubeflow's dashboard the "
                f"address ends in /pipeline; a login page needs a credential. {HOW_TO}."
            )
        if response is not None and (broken is not None or not _is_object(response.data)):
            raise Transient(_UNREADABLE)  # JSON by its name only: cut off, or of another form
        if broken is not None:
            raise broken
        return result


def _address(endpoint: str) -> urllib.parse.SplitResult | None:
    """The parts of a web address; None for text that is none."""
    try:
        url = urllib.parse.urlsplit(endpoint)
        return url if url.scheme in ("http", "https") and url.port != 0 else None
    except ValueError:  # half of an IPv6 address, or a port that is none
        return None


def _is_object(body: Any) -> bool:
    """Whether a body is an object in JSON, as all answers are; the generated client takes others for an empty one."""
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def _reason(error: Exception, timeout: float) -> str:
    """Why there was no answer at all."""
    if isinstance(error, urllib3.exceptions.NewConnectionError):  # some versions count it among the time-outs
        return f"no connection ({str(error).rpartition(': ')[2]})"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return f"no answer within {timeout:g} s"
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return "the connection broke off"
    return f"{type(error).__name__}: {error}"


def _is_local(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
