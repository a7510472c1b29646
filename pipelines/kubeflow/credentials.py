"""Who we are to the Kubeflow Pipelines API: a bearer token or session cookies, from a file or the environment.

A secret is never an argument of a command, where every user of the machine could read it, and is in no message: errors
name its source. A file is read again for each request, because the tokens that Kubernetes puts into pods expire within
the hour and are replaced in place.
"""

from __future__ import annotations

import http.cookiejar
import ipaddress
import os
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from morph_core import MorphError

from ..config.location import without_password

HOW_TO = (
    "Give a bearer token with --token-file or KFP_TOKEN (service accounts; Identity-Aware Proxy: an OpenID Connect "
    "token), or session cookies with --cookie-file or KFP_COOKIE (Dex, oauth2-proxy: copy them from a browser that is "
    "logged in, or from curl -c)"
)
"""How to give a credential, for messages."""

_MOST_BYTES = 1 << 20  # of a file with a token or cookies

_POD_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"
"""Where a pod finds the token for Kubeflow Pipelines, when one is projected into it."""


@dataclass(frozen=True)
class Credential:
    """A secret that is read when it is needed; its representation holds only where it comes from."""

    kind: Literal["token", "cookie"]
    source: str
    _read: Callable[[], str] = field(repr=False)

    def header(self) -> tuple[str, str]:
        """Name and value of the HTTP header.

        Raises:
            MorphError: the file cannot be read, or holds no token or cookies.
        """
        secret = self._read()
        if self.kind == "token":
            return "authorization", f"Bearer {secret}"
        return "Cookie", secret

    def hide(self, text: str) -> str:
        """The text without the secret, should a server repeat it."""
        secret = self._read()
        parts = [secret] if self.kind == "token" else [pair.partition("=")[2] for pair in secret.split("; ")]
        for part in (secret, *parts):
            if len(part) > 3:
                text = text.replace(part, "***")
        return text


def find_credential(
    endpoint: str,
    token_file: str | os.PathLike[str] | None = None,
    cookie_file: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Credential | None:
    """The credential for an endpoint: from the files, else the environment, else the pod's own token, else None.

    Args:
        endpoint: the API's address; from a cookie file in Netscape's format only this host's cookies are taken.
        token_file: holds a bearer token.
        cookie_file: holds cookies, as `name=value; name=value` or in the format of `curl -c`.
        environment: `KFP_TOKEN`, `KFP_TOKEN_FILE`, `KFP_COOKIE` and `KFP_COOKIE_FILE` are looked up here, and
            whether this is a pod.

    Raises:
        MorphError: a token and cookies at once, or a secret that would travel without encryption.
    """
    found = _one("the options and the configuration", _files(endpoint, token_file, cookie_file, "the file {}"))
    if found is None:
        of_environment = _files(
            endpoint,
            environment.get("KFP_TOKEN_FILE"),
            environment.get("KFP_COOKIE_FILE"),
            "the file {}, which the environment names",
        )
        kinds: dict[str, Literal["token", "cookie"]] = {"KFP_TOKEN": "token", "KFP_COOKIE": "cookie"}
        for name, kind in kinds.items():
            value = environment.get(name)
            if value:
                source = f"the environment variable {name}"
                of_environment.append(Credential(kind, source, lambda v=value, k=kind, s=source: _checked(v, k, s)))
        found = _one("the environment", of_environment)
    if found is None:
        pod_token = environment.get("KF_PIPELINES_SA_TOKEN_PATH") or _POD_TOKEN
        if os.path.exists(pod_token):
            [found] = _files(endpoint, pod_token, None, "the pod's token {}")
    in_pod = bool(environment.get("KUBERNETES_SERVICE_HOST"))  # Kubernetes sets it in every container
    if found is not None and not _travels_safely(endpoint, in_pod):
        raise MorphError(
            f"{without_password(endpoint)}: {found.source} would be sent without encryption. Use https://, or a port "
            "that kubectl forwards to localhost. Names of the cluster's own services are for commands that run in its "
            "pods."
        )
    return found


def _one(where: str, credentials: list[Credential]) -> Credential | None:
    if len(credentials) > 1:
        raise MorphError(
            f"Expected one credential, but {where} give {len(credentials)}: "
            + " and ".join(credential.source for credential in credentials)
            + ". Leave all but one out."
        )
    return credentials[0] if credentials else None


def _files(
    endpoint: str, token: str | os.PathLike[str] | None, cookie: str | os.PathLike[str] | None, source: str
) -> list[Credential]:
    found = []
    if token:
        name = source.format(token)
        found.append(Credential("token", name, lambda: _checked(_text(token, name), "token", name)))
    if cookie:
        text = source.format(cookie)
        found.append(Credential("cookie", text, lambda: _cookies(endpoint, cookie, text)))
    return found


def _text(path: str | os.PathLike[str], source: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise MorphError(f"Cannot read {source}: it is larger than {_MOST_BYTES:,} bytes. {HOW_TO}.")
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise MorphError(f"Cannot read {source}: {reason}. {HOW_TO}.") from None


def _cookies(endpoint: str, path: str | os.PathLike[str], source: str) -> str:
    text = _text(path, source)
    if not text.startswith(("# Netscape HTTP Cookie File", "# HTTP Cookie File")):
        return _checked(text, "cookie", source)
    jar = http.cookiejar.MozillaCookieJar()
    try:
        jar.load(str(path), ignore_discard=True, ignore_expires=True)
    except http.cookiejar.LoadError:
        raise MorphError(
            f"Cannot read {source}: it starts as a cookie file in Netscape's format, but is none."
        ) from None
    for cookie in jar:
        if cookie.expires == 0:  # curl's word for one that lasts as long as the session
            cookie.expires = None
    request = urllib.request.Request(endpoint + "/apis/v2beta1/")
    jar.add_cookie_header(request)
    header = request.get_header("Cookie")
    if header is None:
        raise MorphError(f"{source} holds no cookie for {without_password(endpoint)} that is still valid. {HOW_TO}.")
    return _checked(header, "cookie", source)


def _checked(text: str, kind: str, source: str) -> str:
    """The secret without the white space around it. The message for a bad one does not repeat it."""
    secret = text.strip()
    if kind == "token":
        secret = secret.removeprefix("Bearer ").strip()
        good = bool(secret) and secret.isascii() and secret.isprintable() and " " not in secret
        expected = "one bearer token without spaces"
    else:
        secret = "; ".join(pair.strip() for pair in secret.split(";") if pair.strip())
        good = bool(secret) and secret.isascii() and secret.isprintable() and "=" in secret
        expected = "cookies, as name=value; name=value, on one line"
    if not good:
        raise MorphError(f"{source} holds no {kind}: expected {expected}.")
    return secret


def _travels_safely(endpoint: str, in_pod: bool) -> bool:
    """Whether a request is encrypted, stays on this machine, or stays inside the cluster.

    Outside of a pod a service's name is anybody's: whoever answers for `ml-pipeline` in this network.
    """
    try:
        url = urllib.parse.urlsplit(endpoint)
        host = url.hostname or ""
    except ValueError:  # no address, which KubeflowApi refuses
        return True
    if url.scheme != "http" or host == "localhost":  # what is no address at all is refused by KubeflowApi
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return in_pod and ("." not in host or host.endswith((".svc", ".svc.cluster.local")))
