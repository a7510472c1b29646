"""What an answer of the Kubeflow Pipelines API means that is no result: worth another attempt, or one message.

The generated client raises the same exception for all of them. Here each status becomes one of ours, with the message
of the server on one line and without the secret that was sent, should the server repeat it.
"""

from __future__ import annotations

import json
import re
from typing import Any

from morph_core import MorphError

from .credentials import HOW_TO, Credential


class Transient(Exception):
    """The same request may succeed later; it may have been executed already."""

    def __init__(self, reason: str, retry_after: float = 0.0):
        super().__init__(reason)
        self.retry_after = retry_after


class NotTheApi(MorphError):
    """What answers is no Kubeflow Pipelines API; a request may have been executed behind it all the same."""


class Conflict(Exception):
    """There is such an object already."""


class Gone(MorphError):
    """There is no such object."""


def refusal(what: str, error: Any, endpoint: str, credential: Credential | None) -> Exception:
    """The exception to raise for an answer that is no result.

    Args:
        what: what the request was to do, for messages: "list the schedules".
        error: kfp_server_api's ApiException; its status is 0 where the server's certificate was not accepted.
        endpoint: the API's address.
        credential: what was sent with the request.

    Returns:
        `Transient`, `Conflict`, `Gone` or another `MorphError`.
    """
    status = error.status or 0
    said = _said(error, credential)
    if status == 0:
        return MorphError(
            f"{endpoint}: {said}. If the server's certificate is signed by your own authority, name its certificates: "
            "--ca-file FILE."
        )
    if status in (401, 403) or 300 <= status < 400:
        sent = (
            "no credential was sent" if credential is None else f"the {credential.kind} of {credential.source} was sent"
        )
        meaning = {401: "does not know us", 403: "does not allow us to do this"}.get(status, "sends us to log in")
        return MorphError(
            f"Kubeflow Pipelines refuses to {what}: status {status}, it {meaning}; {sent}. {HOW_TO}."
            + (f" The server said: {said}." if said else "")
        )
    if status == 404:
        return Gone(
            f"Kubeflow Pipelines cannot {what}: status 404, not found. Expected the API at {endpoint}"
            + (f". The server said: {said}." if said else ".")
        )
    if status == 409:
        return Conflict(f"status 409, there is one already. The server said: {said}.")
    if status in (408, 429) or (status >= 500 and status != 501):
        seconds = (error.headers or {}).get("retry-after") or ""
        return Transient(
            f"the server answered {status}" + (f" ({said})" if said else ""),
            float(seconds) if seconds.isdecimal() else 0.0,
        )
    return MorphError(f"Kubeflow Pipelines refuses to {what}: status {status}. The server said: {said or 'nothing'}.")


def without_secret(text: str, credential: Credential | None) -> str:
    """The text as it may be shown."""
    return text if credential is None else credential.hide(text)


def _said(error: Any, credential: Credential | None) -> str:
    """The message in an answer, on one line, without secrets."""
    text = error.body or error.reason or ""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    if isinstance(fields, dict):
        text = str(fields.get("error_message") or fields.get("message") or fields.get("error") or "")
    elif "<html" in text.lower():
        text = ""
    return without_secret(re.sub(r"\s+", " ", text).strip().rstrip(".")[:300], credential)
