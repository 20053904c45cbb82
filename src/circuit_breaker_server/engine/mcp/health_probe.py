"""One check of an MCP server, with the official client: initialize, ping, list what it offers."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import random
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, final
from urllib.parse import urlsplit

import msgspec

from circuit_breaker_server.engine.errors import EngineError
from circuit_breaker_server.engine.mcp.capabilities import (
    Features,
    Listing,
    Parameter,
    Prompt,
    Resource,
    Tool,
)
from circuit_breaker_server.engine.mcp.health_finding import Finding
from circuit_breaker_server.engine.mcp.records import Retry
from circuit_breaker_server.engine.mcp.validation import MAX_LISTED, check_listing
from circuit_breaker_server.outbound import AddressRefused, Outbound
from circuit_breaker_server.outbound.addresses import host_of
from circuit_breaker_server.outbound.tls import default_tls

if TYPE_CHECKING:
    import httpx2
    import mcp
    import mcp.types

__all__ = ["Target", "check", "delay_seconds"]

_MAX_TEXT: Final = 500
_MAX_PAGES: Final = 20
_BATCHING: Final = "2025-03-26"  # the one version of the protocol with batches


@final
class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoint and settings of one check; it holds all secrets.

    :ivar tls: of an https endpoint; ``None`` trusts the system's authorities.
    :ivar outbound: the allowed addresses, and the limits of answers.
    """

    endpoint: str
    timeout_seconds: float
    max_connections: int
    retry: Retry
    headers: Mapping[str, str]
    tls: ssl.SSLContext | None
    outbound: Outbound


_CLIENT: Final = "mcp.client.streamable_http"
_NOT_INSTALLED: Final = (
    "this server cannot speak with MCP servers: it was installed without the extra `mcp` "
    "(pip install 'circuit-breaker-sdk[server,mcp]')"
)


class _CheckFailed(Exception):
    """A check cannot go on; the text says why."""


async def check(target: Target) -> Finding:
    """Check an MCP server; never raises for what it does, and is over within the target's time.

    Cancellation stops it and closes its connections.
    """
    finding, problem = Finding(), ""
    if _CLIENT not in sys.modules:
        # In a thread, so that streams go on; and before the clock runs: it is no waiting for the peer.
        try:
            await asyncio.to_thread(importlib.import_module, _CLIENT)
        except ModuleNotFoundError:
            finding.error = _NOT_INSTALLED
            return finding
    try:
        async with asyncio.timeout(target.timeout_seconds):
            for attempt in range(target.retry.max_attempts):
                if attempt:
                    await asyncio.sleep(delay_seconds(target.retry, attempt))
                finding = Finding()
                try:
                    await _attempt(target, finding)
                except _CheckFailed as error:
                    problem = finding.error = str(error)
                else:
                    return finding
                if finding.authenticated is False:
                    break  # asked again, it would refuse again
    except TimeoutError:
        late = f"no whole answer within {target.timeout_seconds:g} s"
        finding.error = f"{late}; before that: {problem}" if problem else late
    finding.listing = None
    return finding


def delay_seconds(retry: Retry, attempt: int) -> float:
    """Return how long to wait before a try; 1 is the second one."""
    delay_ms = min(retry.max_delay_ms, retry.initial_delay_ms * retry.backoff_multiplier ** (attempt - 1))
    jitter = 1 + retry.jitter_factor * random.uniform(-1, 1)  # noqa: S311 (spreads load, protects nothing)
    return delay_ms * jitter / 1000


async def _attempt(target: Target, finding: Finding) -> None:
    started = time.perf_counter()
    await _reach(target, finding)
    try:
        listing = await _speak(target, finding)
    except _CheckFailed:
        raise
    except Exception as error:
        # Cancelled while something else fails, the client's task groups raise only the failure.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from error
        # The client's tree of errors is not documented, and a peer that lies may cause any of them.
        raise _CheckFailed(_reason(error, finding)) from error
    finding.response_time_ms = round((time.perf_counter() - started) * 1000)
    finding.listing = listing


async def _reach(target: Target, finding: Finding) -> None:
    """Connect once and hang up, to tell the name, the port and TLS apart."""
    try:
        host, parts = host_of(target.endpoint), urlsplit(target.endpoint)
    except ValueError as error:  # kept by an earlier version
        raise _CheckFailed(f"config.endpoint {error}") from error
    is_https = parts.scheme == "https"
    port = parts.port or (443 if is_https else 80)
    try:
        addresses = await target.outbound.rules.addresses(host, port)
    except AddressRefused as error:
        raise _CheckFailed(str(error)) from error
    except OSError as error:
        raise _CheckFailed(f"the host {host} is not known") from error
    finding.dns = True
    try:
        address, plain = await _connect(addresses, port)
        plain.close()
        await _closed(plain)
    except OSError as error:
        raise _CheckFailed(f"{host}:{port} does not accept connections: {_os_text(error)}") from error
    finding.tcp = True
    if is_https:
        try:
            context = await _tls_of(target)
            _, secure = await asyncio.open_connection(address, port, ssl=context, server_hostname=host)
            secure.close()
            await _closed(secure)
        except (OSError, ssl.CertificateError) as error:
            finding.handshake = False
            raise _CheckFailed(f"the TLS handshake with {host}:{port} failed: {_os_text(error)}") from error
        finding.handshake = True


async def _connect(addresses: Sequence[str], port: int) -> tuple[str, asyncio.StreamWriter]:
    """Connect to the first address that accepts; none is looked up again after its check."""
    failure: OSError | None = None
    for address in addresses:
        try:
            _, writer = await asyncio.open_connection(address, port)
        except OSError as error:
            failure = failure or error
        else:
            return address, writer
    raise failure or OSError("no address")


async def _tls_of(target: Target) -> ssl.SSLContext | None:
    """Return what TLS is checked with; ``None`` where there is none: making one blocks for 20 ms."""
    if not target.endpoint.startswith("https:"):
        return None
    return target.tls or await asyncio.to_thread(default_tls)


async def _closed(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _os_text(error: Exception) -> str:
    return _cut(getattr(error, "strerror", None) or str(error) or type(error).__name__)


async def _speak(target: Target, finding: Finding) -> Listing:
    # Imported here: the client costs half a second, which the start of a server must not.
    import mcp  # noqa: PLC0415 (as above)
    from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415 (as above)

    from circuit_breaker_server.outbound.client import (  # noqa: PLC0415 (as above)
        Transport,
        open_client,
        refusal_in,
    )

    _silence()

    async def note(response: httpx2.Response) -> None:
        finding.http_status = response.status_code
        if response.status_code in (401, 403):
            finding.authenticated = False

    bounded = Transport(
        target.outbound.rules,
        target.outbound.limits,
        streams=False,
        tls=await _tls_of(target),
        max_connections=target.max_connections,
    )
    try:
        async with open_client(
            bounded, timeout_seconds=target.timeout_seconds, headers=target.headers, on_answer=note
        ) as http:
            transport = streamable_http_client(target.endpoint, http_client=http)
            async with mcp.Client(transport, mode="legacy") as client:
                finding.initialized, finding.authenticated = True, True
                await client.session.send_ping()
                return await _list(client)
    except Exception as error:
        # The client takes what breaks a stream for a stream that has ended, and tells of that.
        if (refusal := bounded.refusal or refusal_in(error)) is not None:
            raise _CheckFailed(str(refusal)) from error
        raise


def _silence() -> None:
    """Keep the client's own logs to itself: what it says of a bad peer is this check's finding."""
    for name in ("mcp", "client", "httpx2"):
        logger = logging.getLogger(name)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())


async def _list(client: mcp.Client) -> Listing:
    offered = client.server_capabilities
    tools: list[mcp.types.Tool] = []
    resources: list[mcp.types.Resource] = []
    prompts: list[mcp.types.Prompt] = []
    if offered.tools is not None:
        tools = await _pages(lambda at: client.list_tools(cursor=at), lambda page: page.tools, "tools")
    if offered.resources is not None:
        resources = await _pages(
            lambda at: client.list_resources(cursor=at), lambda page: page.resources, "resources"
        )
    if offered.prompts is not None:
        prompts = await _pages(
            lambda at: client.list_prompts(cursor=at), lambda page: page.prompts, "prompts"
        )
    listing = Listing(
        tools=tuple(
            Tool(name=each.name, description=each.description or "", input_schema=each.input_schema)
            for each in tools
        ),
        resources=tuple(
            Resource(
                uri=str(each.uri),
                name=each.name,
                description=each.description,
                type="resource",
                mime_type=each.mime_type,
            )
            for each in resources
        ),
        prompts=tuple(
            Prompt(
                name=each.name,
                description=each.description or "",
                template="",
                parameters=tuple(
                    Parameter(
                        name=argument.name,
                        description=argument.description,
                        type="string",
                        required=bool(argument.required),
                    )
                    for argument in each.arguments or ()
                ),
            )
            for each in prompts
        ),
        features=Features(
            streaming=True,
            file_operations=offered.resources is not None,
            notifications=any(
                part is not None and bool(part.list_changed)
                for part in (offered.tools, offered.resources, offered.prompts)
            ),
            batch_operations=client.protocol_version == _BATCHING,
            content_types=("application/json", "text/event-stream"),
        ),
        protocol_version=client.protocol_version,
    )
    try:
        check_listing(listing, "what it lists")
    except EngineError as error:
        raise _CheckFailed(f"what it lists cannot be kept: {error}") from error
    return listing


class _Page(Protocol):
    next_cursor: str | None


_P = TypeVar("_P", bound=_Page)
_T = TypeVar("_T")


async def _pages(
    ask: Callable[[str | None], Awaitable[_P]], items: Callable[[_P], Sequence[_T]], what: str
) -> list[_T]:
    """Ask for all pages of a list, and stop at one that is too long."""
    found: list[_T] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await ask(cursor)
        found += items(page)
        cursor = page.next_cursor
        if cursor is None:
            return found
        if len(found) > MAX_LISTED:
            break
    raise _CheckFailed(f"lists too many {what}: at most {MAX_LISTED} on {_MAX_PAGES} pages are read")


def _reason(error: BaseException, finding: Finding) -> str:
    """Say what happened in one line; of a group what its first member says."""
    first = next(_leaves(error))
    if finding.authenticated is False:
        return f"the endpoint refuses us: HTTP status {finding.http_status}"
    status = finding.http_status
    answered = "" if status is None else f" (HTTP status {status})"
    if finding.initialized:
        return f"failed after initialize{answered}: {_line(first)}"
    return f"does not answer initialize as an MCP server does{answered}: {_line(first)}"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _line(error: BaseException) -> str:
    # After this mark the client's validation shows what it was given: not for a message.
    text = str(error).partition(" [type=")[0]
    return _cut(" ".join(text.split()) or type(error).__name__)


def _cut(text: str) -> str:
    printable = "".join(c if c.isprintable() else "?" for c in text)
    return printable if len(printable) <= _MAX_TEXT else printable[:_MAX_TEXT] + "…"
