"""``circuit-breaker nodes``: the servers that share one event log, as one of them sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final
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
from circuit_breaker_sdk.transports.proxied_http import proxy_arguments
from circuit_breaker_sdk.transports.proxies import ProxyError
from circuit_breaker_sdk.urls import redacted

__all__ = ["nodes"]

_SECONDS: Final = 10.0
_MAX_BYTES: Final = 1024 * 1024
_HEADS: Final = ("NAME", "TERM", "STATUS", "ADDRESS", "BEHIND", "RELEASE", "JOINED")
_ALONE: Final = "this server has its event log alone"
_OK: Final = 200


class _Node(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    term: int
    status: str
    address: str | None = None
    release: str | None = None
    joined_at: str | None = None
    records_behind: int | None = None


class _Health(msgspec.Struct, frozen=True):
    """The part of a server's health that is read here.

    :ivar connections: told only to callers who may see the nodes too.
    """

    status: str
    connections: dict[str, object] | None = None
    nodes: tuple[_Node, ...] | None = None


class _NoHealthError(Exception):
    """The peer answers, and not as a health endpoint of this server."""


async def nodes(stop: asyncio.Event, url: str, *, token: str | None, as_json: bool) -> int:
    """Print a line for each node; a server that has its log alone is one line that says so.

    :param as_json: one array on stdout in place of the table; empty where the server is alone.
    """
    try:
        server = Patient.of(url, token=token, seconds=_SECONDS)
        health = await until_stopped(stop, _ask(server))
    except UsageError as error:
        print_error(error)
        return ExitCode.USAGE
    except (_NoHealthError, aiohttp.ClientError, OSError, ProxyError) as error:
        print_error(f"{redacted(url)}: {_reason(error)}")
        return ExitCode.UNREACHABLE
    if health is None:
        return ExitCode.INTERRUPTED
    if health.connections is None and health.nodes is None:
        advice = ADVICE_WITHOUT_CREDENTIALS if token is None else "it does not take this token"
        print_error(f"{redacted(url)}: the server shows its nodes to callers with credentials only; {advice}")
        return ExitCode.UNAUTHENTICATED
    _print(health.nodes, as_json=as_json)
    return ExitCode.OK


async def _ask(server: Patient) -> _Health:
    """Ask a server how it is.

    :raises _NoHealthError: it does not say so as this project's server does.
    """
    headers = {**server.headers, "Accept": "application/json"}
    url = _health_url(server.http)
    given = proxy_arguments(server.proxy, headers, secure=url.startswith("https"))
    async with (
        asyncio.timeout(_SECONDS),
        session_of(server) as session,
        session.get(URL(url, encoded=True), allow_redirects=False, **given) as answer,
    ):
        if answer.status != _OK:
            raise _NoHealthError(f"GET {redacted(url)} is answered with status {answer.status}")
        said = b""
        while len(said) < _MAX_BYTES and (piece := await answer.content.read(_MAX_BYTES)):
            said += piece
    try:
        return msgspec.json.decode(said, type=_Health)
    except msgspec.DecodeError as error:
        raise _NoHealthError("this is no Circuit Breaker server, or an older one") from error


def _health_url(url: str) -> str:
    """Return where the server of a GraphQL URL tells its health: beside it, whatever stands before both."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rpartition("/")[0] + "/health", "", ""))


def _print(found: Sequence[_Node] | None, *, as_json: bool) -> None:
    if as_json:
        print_text(msgspec.json.encode(found or ()).decode())
        if found is None:
            print_marker("alone", _ALONE)
    elif found is None:
        print_text(_ALONE)
    else:
        print_text(table_text(Table(found, _HEADS, [_cells(each) for each in found])))


def _cells(node: _Node) -> tuple[str, ...]:
    values = (
        node.name,
        node.term,
        node.status,
        node.address,
        node.records_behind,
        node.release,
        node.joined_at,
    )
    return tuple("-" if value is None else str(value) for value in values)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_SECONDS:g} s"
    return str(error) or type(error).__name__
