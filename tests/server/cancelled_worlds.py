"""Worlds in which any mutation of the API can be executed, as they were just before it was executed once.

A real server executes every mutation through the SDK; the log and the secrets before each are kept. From
them a world is built in memory as often as a test wants: an engine on a copy of the log, with a clock that
stands, ids that are counted, and endpoints that answer at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, final

import aiohttp
import msgspec
import pytest

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.transports.http import HttpTransport
from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.access.audit_lines import Auditor
from circuit_breaker_server.access.caller import Caller, Permissions
from circuit_breaker_server.access.mutation_audit import AuditTrail, position_of
from circuit_breaker_server.config import OAuthProviderSettings
from circuit_breaker_server.engine.agents.inputs import TriggerInput
from circuit_breaker_server.engine.command_origin import origin_of
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.ids import RandomIds
from circuit_breaker_server.engine.llm.endpoints import Ask, Outcome, Piece
from circuit_breaker_server.engine.llm.openai_endpoint import OpenAIEndpoint
from circuit_breaker_server.engine.mcp.capabilities import Features, Listing
from circuit_breaker_server.engine.mcp.health_finding import Finding
from circuit_breaker_server.engine.mcp.health_probe import Target
from circuit_breaker_server.engine.mcp.oauth import Tokens
from circuit_breaker_server.engine.mcp.providers import custom
from circuit_breaker_server.engine.mcp.records import Provider
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.graphql.execute import execute
from circuit_breaker_server.graphql.idempotent_execution import Once
from circuit_breaker_server.graphql.root_fields import MUTATIONS
from circuit_breaker_server.graphql.schema import load_schema
from circuit_breaker_server.log.event_log import ExpectationFailed, LogError, NewRecord, Record
from circuit_breaker_server.security.audit import AuditEvent
from circuit_breaker_server.security.authentication import Principal
from scripts.coverage_api import CALLS, World, endpoints
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.memory_secrets import MemorySecrets

__all__ = ["Before", "CancelledWorld", "awaited", "before_each_mutation", "running", "still"]

NOW: Final = datetime.now(UTC)
QUIET_TURNS: Final = 30
FEATURES: Final = Features(
    streaming=True, file_operations=False, notifications=False, batch_operations=False, content_types=()
)

DOCUMENTS: Final = Documents(load_schema())

SEEN: Final = (
    "{ workflows { id states { id name } } resources { id state data history { activity } } "
    "agents { id name } rules { id version } llmProviders { id name } "
    "mcpServers { edges { node { id name enabled activeSessionsCount } } } "
    'mcpSessions(userId: "ada") { edges { node { id status } } } '
    'budgetStatus(userId: "ada") { budgetId used limit } }'
)
"""What a client sees of everything, but for the status of MCP servers, which a check may change meanwhile."""


class _Asked(msgspec.Struct, rename="camel"):
    query: str
    operation_name: str = ""
    variables: dict[str, object] | None = None


@final
@dataclass(frozen=True)
class Before:
    """A mutation, and everything as it was before it.

    :ivar providers: where users of MCP servers may sign in.
    """

    name: str
    query: str
    variables: Mapping[str, object] | None
    records: Sequence[Record]
    secrets: Mapping[str, str]
    providers: Sequence[Provider]


async def before_each_mutation(directory: Path) -> dict[str, Before]:
    """Execute every mutation of the API once; return each by name, with what was there before it."""
    found: dict[str, Before] = {}
    send = HttpTransport._send
    async with endpoints() as endpoint:
        corp = OAuthProviderSettings(
            id="corp",
            name="Corp",
            authorization_endpoint="https://corp.example/auth",
            token_endpoint=f"{endpoint}/token",
        )
        settings = ServerSettings(
            port=0,
            data_dir=directory,
            oauth_providers=(corp,),
            mcp_check_seconds=3600.0,
            log_level="critical",
        )
        async with Server(settings) as server, Client(server.url) as client:

            async def noting(
                self: HttpTransport,
                body: bytes,
                headers: Mapping[str, str],
                judge: Callable[[aiohttp.ClientResponse, bytes], bytes],
            ) -> bytes:
                asked = msgspec.json.decode(body, type=_Asked)
                name = asked.operation_name[0].lower() + asked.operation_name[1:]
                if name in MUTATIONS and name not in found:
                    engine = server.engine
                    records = [record async for record in engine._folding._log.scan(after=0)]
                    secrets = {id_: str(engine._secrets.get(id_)) for id_ in engine._secrets.ids()}
                    found[name] = Before(
                        name, asked.query, asked.variables, records, secrets, (custom(corp),)
                    )
                return await send(self, body, headers, judge)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(HttpTransport, "_send", noting)
                world = World(client, endpoint)
                for _, call in CALLS.values():
                    await call(world)
    return found


@final
class SlowLog(MemoryLog):
    """A log in memory whose appends take turns of the loop, and go on when their caller is cancelled."""

    def __init__(self, records: Sequence[Record]) -> None:
        super().__init__()
        self.records = list(records)
        self.time_ms = int(NOW.timestamp() * 1000)

    async def append(self, record: NewRecord) -> Record:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Record] = loop.create_future()

        def commit() -> None:
            try:
                stored = self.put(record)
            except LogError as error:
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(stored)

        loop.call_soon(loop.call_soon, commit)
        return await answer

    def put(self, record: NewRecord) -> Record:
        last = next((r.offset for r in reversed(self.records) if r.subject == record.subject), 0)
        if record.expected not in (None, last) and all(r.id != record.id for r in self.records):
            raise ExpectationFailed(record.subject, expected=record.expected or 0, actual=last)
        return super().put(record)


@final
class SlowSecrets(MemorySecrets):
    """Secrets whose changes take a turn of the loop before and after."""

    async def put(self, id: str, value: str) -> None:  # noqa: A002 (the port's own)
        await asyncio.sleep(0)
        await super().put(id, value)
        await asyncio.sleep(0)

    async def remove(self, id: str) -> None:  # noqa: A002 (as above)
        await asyncio.sleep(0)
        await super().remove(id)
        await asyncio.sleep(0)


@final
@dataclass
class AuditLines:
    """An audit log in memory."""

    events: list[AuditEvent] = field(default_factory=list)
    position: str | None = None

    def append(self, event: AuditEvent) -> None:
        self.events.append(event)


@final
class CancelledWorld:
    """An engine behind its schema, for one principal who may do everything and is written down."""

    def __init__(
        self, before: Before, records: Sequence[Record], secrets: Mapping[str, str], audit: AuditLines
    ) -> None:
        self.before = before
        self.began_at = len(before.records)
        self.log = SlowLog(records)
        self.secrets = SlowSecrets(secrets)
        self.audit = audit
        self.trail = AuditTrail(audit, self.log)  # type: ignore[arg-type]  # as much of one as it needs
        self.engine = Engine(
            self.log,
            now=lambda: NOW,
            secrets=self.secrets,
            oauth_providers=before.providers,
            mcp_check_seconds=3600.0,
            audit=self.trail.follow,
        )
        self.once = Once(self.engine, timeout_seconds=30.0)
        self.caller = Caller(Principal("ada"), Permissions(), address="192.0.2.7", audit=Auditor(audit))

    @classmethod
    def of(cls, before: Before) -> CancelledWorld:
        """Make the world as it was before the mutation."""
        end = f"{MemoryLog.epoch}.{len(before.records)}"
        return cls(before, before.records, before.secrets, AuditLines(position=end))

    def killed(self) -> CancelledWorld:
        """Make the world that a kill of this one leaves: what is durable, and the lines that were written."""
        audit = AuditLines(list(self.audit.events), self.audit.position)
        return CancelledWorld(self.before, self.log.records, self.secrets.values, audit)

    async def start(self) -> None:
        await self.trail.catch_up()
        await self.engine.start()
        await self.settle()

    async def aclose(self) -> None:
        self.log.closed = True
        await self.once.aclose()
        await self.engine.aclose()

    async def ask(self, query: str, variables: Mapping[str, object] | None, *, key: str | None) -> bytes:
        document = DOCUMENTS.get(query)
        if key is not None:
            done = await self.once.execute(document, variables, None, key=key, caller=self.caller)
            return done.answer
        return await execute(
            document, variables=variables, operation_name=None, engine=self.engine, caller=self.caller
        )

    async def prepared(self) -> Mapping[str, object] | None:
        """Return the variables of the mutation; a run to be cancelled is triggered first."""
        if self.before.name != "cancelAgentExecution":
            return self.before.variables
        (resource,) = {
            entry.resource_id
            for entry in self.engine.agents._state.executions.values()
            if entry.state_id == "b"
        }
        (run,) = (await self.engine.agents.trigger(TriggerInput(resource_id=resource))).value
        await self.settle()
        return {"executionId": str(run["id"])}

    async def settle(self) -> None:
        """Wait until nothing moves any more."""
        quiet, last = 0, -1
        while quiet < QUIET_TURNS:
            await asyncio.sleep(0)
            quiet = quiet + 1 if last == len(self.log.records) and not self.engine.commands._running else 0
            last = len(self.log.records)

    async def observed(self) -> dict[str, object]:
        """Return everything that a mutation can have changed, as comparable values."""
        seen = await self.ask(SEEN, None, key=None)
        assert b'"errors"' not in seen, seen
        return {
            "records": sorted(
                (each.subject, each.id, each.data) for each in self.log.records[self.began_at :]
            ),
            "audit": sorted((each.what, each.record or "") for each in self.audit.events),
            "secrets": dict(self.secrets.values),
            "work": self.work(),
            "seen": seen,
        }

    def work(self) -> dict[str, object]:
        """Return what goes on by itself."""
        engine = self.engine
        return {
            "runs": sorted(engine.agents._runs._running),
            "completions": len(engine.llm._completions._running),
            "checks": sorted(engine.mcp._checks._tasks),
            "expiries": sorted(engine.mcp.sessions._expiries._moments),
            "dues": list(engine.costs._state.dues),
        }

    def faults(self) -> list[str]:
        """Return what does not follow from the records: nothing, in a world that is whole."""
        engine, found = self.engine, list[str]()
        lines = [each.record for each in self.audit.events if each.record is not None]
        wanted = [
            position_of(self.log, record.offset)
            for record in self.log.records[self.began_at :]
            if origin_of(record).action
        ]
        if sorted(lines) != sorted(wanted):
            found.append(f"audit lines {lines}, records {wanted}")
        runs = {e.id for e in engine.agents._state.executions.values() if e.completed_at is None}
        if runs != set(engine.agents._runs._running):
            found.append(f"open runs {runs}, running {set(engine.agents._runs._running)}")
        open_ = [e for e in engine.llm._state.completions.values() if e.ended_at is None]
        if len(open_) != len(engine.llm._completions._running):
            found.append(f"open completions {open_}")
        enabled = {e.server.id for e in engine.mcp._state.servers.values() if e.server.enabled}
        if enabled != set(engine.mcp._checks._tasks):
            found.append(f"enabled servers {enabled}, checked {set(engine.mcp._checks._tasks)}")
        active = {e.session.id for e in engine.mcp._state.sessions.values() if e.session.status == "ACTIVE"}
        watched = set(engine.mcp.sessions._expiries._moments)
        if not active <= watched:
            found.append(f"active sessions {active}, watched {watched}")
        if engine.costs._state.dues:
            found.append(f"dues {list(engine.costs._state.dues)}")
        named = engine.agents.secret_ids() | engine.mcp.secret_ids()
        if orphans := {id_ for id_ in self.secrets.values if id_.startswith(("agent-", "mcp-"))} - named:
            found.append(f"secrets without a record {orphans}")
        return found


@contextlib.asynccontextmanager
async def running(world: CancelledWorld) -> AsyncIterator[CancelledWorld]:
    """Run a world for the block."""
    await world.start()
    try:
        yield world
    finally:
        await world.aclose()


@contextlib.contextmanager
def still() -> Iterator[None]:
    """Let time stand, count ids, and answer for everything that is outside: at once, but for the model."""
    numbers = itertools.count(1)

    async def check(_target: Target) -> Finding:
        await asyncio.sleep(0)
        listing = Listing(
            tools=(), resources=(), prompts=(), features=FEATURES, protocol_version="2025-06-18"
        )
        return Finding(
            dns=True,
            tcp=True,
            http_status=200,
            authenticated=True,
            initialized=True,
            listing=listing,
            response_time_ms=1,
        )

    async def tokens(*_given: object, **_more: object) -> Tokens:
        await asyncio.sleep(0)
        return Tokens(access_token="a", refresh_token="r", expires_in=3600)

    async def prepare(_self: OpenAIEndpoint) -> None:
        await asyncio.sleep(0)

    async def ask(_self: OpenAIEndpoint, _ask: Ask, _outcome: Outcome) -> AsyncIterator[Piece]:
        await asyncio.Event().wait()
        yield Piece("")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RandomIds, "hex", lambda _self: f"{next(numbers):032x}")
        patch.setattr(
            "circuit_breaker_server.engine.idempotency.uuid.uuid4", lambda: Mark(f"{next(numbers):032x}")
        )
        patch.setattr(
            "circuit_breaker_server.engine.mcp.sign_in.random.token_urlsafe", lambda _n: f"s{next(numbers)}"
        )
        patch.setattr("circuit_breaker_server.engine.mcp.sign_in.new_verifier", lambda: f"v{next(numbers)}")
        patch.setattr("circuit_breaker_server.engine.llm.completion.time.monotonic", lambda: 0.0)
        patch.setattr("circuit_breaker_server.engine.mcp.mcp.check", check)
        patch.setattr("circuit_breaker_server.engine.mcp.oauth.TokenEndpoints.exchange", tokens)
        patch.setattr("circuit_breaker_server.engine.mcp.oauth.TokenEndpoints.refresh", tokens)
        patch.setattr(OpenAIEndpoint, "prepare", prepare)
        patch.setattr(OpenAIEndpoint, "ask", ask)
        yield


@final
@dataclass(frozen=True)
class Mark:
    """As much of a UUID as a claim needs."""

    hex: str


def awaited(task: asyncio.Task[object]) -> str:
    """Name the place of our code at which a task waits: file, line, function."""
    place = ""
    coroutine: object = task.get_coro()
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None and "circuit_breaker_server" in frame.f_code.co_filename:
            file = Path(frame.f_code.co_filename)
            place = f"{file.parent.name}/{file.name}:{frame.f_lineno} {frame.f_code.co_name}"
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return place
