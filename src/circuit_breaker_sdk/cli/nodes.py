"""``circuit-breaker nodes``: the servers that share one event log, and the version of its records."""

from __future__ import annotations

import asyncio
from typing import Final, Literal
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import msgspec
from yarl import URL

from circuit_breaker_sdk.cli.client_options import ADVICE_WITHOUT_CREDENTIALS
from circuit_breaker_sdk.cli.doctor.http_steps import session_of
from circuit_breaker_sdk.cli.doctor.patient import Patient
from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.requests import Table, print_text, table_text
from circuit_breaker_sdk.cli.runtime import print_error, print_marker, until_stopped
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.transports.error_texts import explain_os_error
from circuit_breaker_sdk.transports.proxied_http import proxy_arguments
from circuit_breaker_sdk.transports.proxies import ProxyError
from circuit_breaker_sdk.urls import redacted

__all__ = ["nodes"]

_SECONDS: Final = 10.0
_MAX_BYTES: Final = 1024 * 1024
_HEADS: Final = ("NAME", "TERM", "STATUS", "ADDRESS", "BEHIND", "READS", "RELEASE", "JOINED")
_ALONE: Final = "this server has its event log alone"
_OTHER: Final = "this is no Circuit Breaker server, or an older one: check the path of the URL"
_TYPENAME: Final = b'{"query":"{ __typename }"}'
_OK: Final = 200
_NOT_THERE: Final = (404, 405)
_REFUSED: Final = {401: ExitCode.UNAUTHENTICATED, 403: ExitCode.REFUSED, 409: ExitCode.REFUSED}


class _Node(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    term: int
    status: str
    address: str | None = None
    release: str | None = None
    joined_at: str | None = None
    records_behind: int | None = None
    reads: int | None = None


class _Health(msgspec.Struct, frozen=True, rename="camel"):
    """The part of a server's health that is read here.

    :ivar connections: told only to callers who may see the nodes too.
    :ivar log_format: the version in which the nodes write records.
    """

    status: Literal["ready", "not ready"]
    connections: dict[str, object] | None = None
    nodes: tuple[_Node, ...] | None = None
    log_format: int | None = None


class _Raised(msgspec.Struct, frozen=True, rename="camel"):
    format: int
    was_raised: bool


class _Error(msgspec.Struct, frozen=True):
    message: str


class _Errors(msgspec.Struct, frozen=True):
    errors: tuple[_Error, ...]


class _NotRaisedError(Exception):
    """The server does not raise the format. The text is the server's reason.

    :ivar exit_code: of the command.
    """

    def __init__(self, exit_code: ExitCode, text: str) -> None:
        self.exit_code = exit_code
        super().__init__(text)


class _NoHealthError(Exception):
    """The peer answers, and not as a health endpoint of this server."""


async def nodes(
    stop: asyncio.Event, url: str, *, token: str | None, as_json: bool, raise_format: bool = False
) -> int:
    """Print a line for each node; a server that has its log alone is one line that says so.

    :param raise_format: let the nodes write records in the newest version that the server reads, before.
    :param as_json: one array on stdout in place of the table; empty where the server is alone.
    """
    try:
        server = Patient.of(url, token=token, seconds=_SECONDS)
    except UsageError as error:
        print_error(error)
        return ExitCode.USAGE
    try:
        health = await until_stopped(stop, _raise_and_ask(server) if raise_format else _ask(server))
    except _NotRaisedError as error:
        print_error(f"{redacted(url)}: {error}")
        return error.exit_code
    except (_NoHealthError, aiohttp.ClientError, OSError, ProxyError) as error:
        print_error(f"{redacted(url)}: {_reason(error, server)}")
        return ExitCode.UNREACHABLE
    if health is None:
        if raise_format:
            print_error("interrupted: the format may have been raised")
        return ExitCode.INTERRUPTED
    if health.connections is None and health.nodes is None:
        advice = ADVICE_WITHOUT_CREDENTIALS if token is None else "it does not take this token"
        print_error(f"{redacted(url)}: the server shows its nodes to callers with credentials only; {advice}")
        return ExitCode.UNAUTHENTICATED
    _print(health, as_json=as_json)
    return ExitCode.OK


async def _ask(server: Patient) -> _Health:
    """Ask a server how it is.

    :raises _NoHealthError: it does not say so as this project's server does.
    """
    url = _beside(server.http, "/health")
    status, said = await _request(server, "GET", url)
    if status != _OK:
        raise _NoHealthError(
            f"GET {redacted(url)} is answered with status {status}: check the path of the URL"
        )
    try:
        health = msgspec.json.decode(said, type=_Health)
    except msgspec.DecodeError as error:
        raise _NoHealthError(_OTHER) from error
    await _check_path(server)
    return health


async def _check_path(server: Patient) -> None:
    """See that the server has operations at the URL: the other paths are beside it, whatever its end is.

    :raises _NoHealthError: there is nothing at the path.
    """
    status, _ = await _request(server, "POST", server.http, _TYPENAME)
    if status in _NOT_THERE:
        raise _NoHealthError(
            f"there is no GraphQL at this path (HTTP {status}): check the path of the URL; "
            "GraphQL is often at /graphql"
        )


async def _raise_and_ask(server: Patient) -> _Health:
    await _check_path(server)
    raised = await _raise_format(server)
    print_marker("raised" if raised.was_raised else "unchanged", f"the log's format is {raised.format}")
    return await _ask(server)


async def _raise_format(server: Patient) -> _Raised:
    """Have a server raise the log's format.

    :raises _NotRaisedError: it refuses.
    :raises _NoHealthError: it does not know the request.
    """
    url = _beside(server.http, "/nodes/format")
    status, said = await _request(server, "POST", url, b"{}")
    try:
        if status == _OK:
            return msgspec.json.decode(said, type=_Raised)
        text = msgspec.json.decode(said, type=_Errors).errors[0].message
    except (msgspec.DecodeError, IndexError) as error:
        raise _NoHealthError(f"POST {redacted(url)} is answered with status {status}: {_OTHER}") from error
    raise _NotRaisedError(_REFUSED.get(status, ExitCode.UNREACHABLE), text)


async def _request(server: Patient, method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
    headers = {**server.headers, "Accept": "application/json"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    given = proxy_arguments(server.proxy, headers, secure=url.startswith("https"))
    async with (
        asyncio.timeout(_SECONDS),
        session_of(server) as session,
        session.request(method, URL(url, encoded=True), data=body, allow_redirects=False, **given) as answer,
    ):
        said = b""
        while len(said) < _MAX_BYTES and (piece := await answer.content.read(_MAX_BYTES)):
            said += piece
    return answer.status, said


def _beside(url: str, path: str) -> str:
    """Return where the server of a GraphQL URL has another path: beside it, whatever stands before both."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/").rpartition("/")[0] + path, "", ""))


def _print(health: _Health, *, as_json: bool) -> None:
    found = health.nodes
    if as_json:
        print_text(msgspec.json.encode(found or ()).decode())
        if found is None:
            print_marker("alone", _ALONE)
        else:
            print_marker("format", _format_text(health))
    elif found is None:
        print_text(_ALONE)
    else:
        print_text(table_text(Table(found, _HEADS, [_cells(each) for each in found])))
        print_text(f"format: {_format_text(health)}")


def _format_text(health: _Health) -> str:
    """Return the log's format, and what to do if all nodes that live read a newer one."""
    written = health.log_format
    reads = [each.reads for each in health.nodes or () if each.status == "live"]
    able = min((each or 0 for each in reads), default=0)
    if written is None or able <= written:
        return "-" if written is None else str(written)
    return f"{written}, and all nodes that live read {able}: raise it with --raise-format"


def _cells(node: _Node) -> tuple[str, ...]:
    values = (
        node.name,
        node.term,
        node.status,
        node.address,
        node.records_behind,
        node.reads,
        node.release,
        node.joined_at,
    )
    return tuple("-" if value is None else str(value) for value in values)


def _reason(error: Exception, server: Patient) -> str:
    """Say in the client's words why there was no answer."""
    if isinstance(error, TimeoutError):
        return f"no answer within {_SECONDS:g} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        cause: Exception = error.os_error
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            cause = error.certificate_error
        if not isinstance(cause, OSError):
            cause = OSError(str(cause))
        return explain_os_error(cause, host=server.host, secure=server.context is not None)
    if isinstance(error, aiohttp.ClientError | ConnectionError):
        return "the answer is not HTTP: is the server running, and is the port right?"
    return str(error) or type(error).__name__
