"""The engine: all domains on one log; commands in, records out, state folded from the records."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import final

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.agents.agents import Agents
from circuit_breaker_server.engine.agents.state import AgentState
from circuit_breaker_server.engine.command import Appender
from circuit_breaker_server.engine.command_tasks import CommandTasks
from circuit_breaker_server.engine.costs.costs import Costs
from circuit_breaker_server.engine.costs.state import CostState
from circuit_breaker_server.engine.costs.streams import select_cost_updates
from circuit_breaker_server.engine.creation_rates import CreationRates
from circuit_breaker_server.engine.errors import EngineError
from circuit_breaker_server.engine.events import Selection
from circuit_breaker_server.engine.idempotency import IdempotencyState
from circuit_breaker_server.engine.llm.llm import Llm
from circuit_breaker_server.engine.llm.state import LlmState
from circuit_breaker_server.engine.mcp.mcp import Mcp
from circuit_breaker_server.engine.mcp.records import Provider
from circuit_breaker_server.engine.mcp.state import McpState
from circuit_breaker_server.engine.mcp.streams import (
    select_capability_updates,
    select_session_events,
    select_status_updates,
)
from circuit_breaker_server.engine.nats.nats import NatsResources
from circuit_breaker_server.engine.nodes.nodes import Nodes
from circuit_breaker_server.engine.nodes.ownership import Identity, Ownership
from circuit_breaker_server.engine.nodes.state import NodeState
from circuit_breaker_server.engine.record_versions import VERSION
from circuit_breaker_server.engine.rules.rules import Rules
from circuit_breaker_server.engine.rules.state import RuleState
from circuit_breaker_server.engine.secrets import NO_SECRETS, Secrets
from circuit_breaker_server.engine.skipped_records import Skipped
from circuit_breaker_server.engine.state_projector import Folding, RecordNotApplied
from circuit_breaker_server.engine.state_tables import Part
from circuit_breaker_server.engine.workflows.selections import select_resource_updates, select_workflow_events
from circuit_breaker_server.engine.workflows.state import FoldedState
from circuit_breaker_server.engine.workflows.workflows import Workflows
from circuit_breaker_server.log.event_log import EventLog, Record
from circuit_breaker_server.outbound import Outbound

__all__ = ["STREAMS", "Engine"]


def _now() -> datetime:
    return datetime.now(UTC)


@final
class Engine:
    """Executes commands and answers queries; the only writer of its log.

    All methods belong to the event loop that :meth:`start` ran on.

    :param snapshot_every: after how many records the state is saved; a restart reads at most about as many.
        After 1,000 already, if they changed as many entries of the state.
    :param secrets: where keys and tokens are.
    :param provider_seconds: for each wait for a provider of language models, and for an attempt of a run.
    :param mcp_check_seconds: between two checks of an MCP server.
    :param mcp_session_seconds: how long a session of an MCP server lasts at most.
    :param oauth_providers: where users of MCP servers may sign in, besides the built-in ones.
    :param idempotency_seconds: how long the key of a mutation is remembered.
    :param outbound: what is observed towards servers that callers have named.
    :param redirects: where OAuth providers may send users back to, besides loopback; ``None``: to what is
        configured for the MCP server.
    :param limits: the shares of tenants and principals in what all of them use.
    :param node: the name of this node in a cluster; empty for a server that is alone on its log.
    :param address: where this node serves, for whoever asks the cluster.
    :param reads: the newest version of records that this node reads; tests of clusters with different
        programs give an older one.
    :param is_log_away: tells whether the log cannot be written now.
    :param audit: called with each record that is appended, after it was applied to the state.
    :param catch_up: writes the audit lines of all records up to the end of the log; called before ``audit``.
    :param may_begin: called before each command of a caller; what it raises refuses the command.

    Example::

        engine = Engine(log)
        await engine.start()
        made = await engine.workflows.create_workflow(CreateWorkflow(name="review", ...))
        await engine.aclose()
    """

    def __init__(
        self,
        log: EventLog,
        *,
        now: Callable[[], datetime] = _now,
        snapshot_every: int = 10_000,
        secrets: Secrets = NO_SECRETS,
        provider_seconds: float = 60.0,
        mcp_check_seconds: float = 30.0,
        mcp_session_seconds: float = 86_400.0,
        oauth_providers: Sequence[Provider] = (),
        idempotency_seconds: float = 86_400.0,
        enforce_budgets: bool = False,
        outbound: Outbound = Outbound(),  # noqa: B008 (a frozen value)
        redirects: Sequence[str] | None = None,
        limits: CallerLimits = CallerLimits(),  # noqa: B008 (a frozen value)
        node: str = "",
        address: str = "",
        reads: int = VERSION,
        is_log_away: Callable[[], bool] = lambda: False,
        audit: Callable[[Record], None] | None = None,
        catch_up: Callable[[], Awaitable[None]] | None = None,
        may_begin: Callable[[], None] | None = None,
    ) -> None:
        nodes, me = NodeState(reads), Identity(node)
        ownership = self._ownership = Ownership(nodes, me)
        workflows, rules, costs = FoldedState(), RuleState(), CostState()
        llm, agents = LlmState(costs.owe), AgentState(costs.owe)
        mcp = McpState()
        parts: list[Part] = [nodes, workflows, rules, llm, agents, costs, mcp]
        tokens = frozenset(token for part in parts for token in part.tokens)
        self.idempotency = IdempotencyState(tokens, seconds=idempotency_seconds)
        """The answers to mutations with an idempotency key."""
        parts.append(self.idempotency)
        self.now = now
        """The clock."""
        self.commands = CommandTasks(may_begin)
        """The commands that run for callers."""
        self._is_log_away = is_log_away
        self._has_joined = self._has_started = False
        self._secrets = secrets
        self._audit = audit
        self._folding = Folding(
            log,
            parts,
            snapshot_every=snapshot_every,
            reads=reads,
            may_save=lambda: ownership.keeps_the_log,
            followers=(self._follow,),
            catch_up=catch_up,
        )
        appender = Appender(
            log,
            is_running=lambda: self._folding.running,
            has_applied=self._folding.has_applied,
            decided_at=lambda: self._folding.state.applied,
            is_claimed=lambda principal, key: self.idempotency.find(principal, key, now=now()) is not None,
            now=now,
            creations=CreationRates(per_second=limits.creations_per_second, burst=limits.creations_at_once),
            me=me,
            log_format=nodes,
        )
        self.nodes = Nodes(nodes, appender, me, address=address, reads=reads, is_log_away=is_log_away)
        """The nodes of the cluster, this one among them."""
        self.epoch = log.epoch
        """The epoch of the log."""
        self.rules = Rules(rules, appender)
        """Stored rules."""
        self.workflows = Workflows(workflows, appender, self.rules)
        """Workflows, states, resources, activities."""
        self.nats = NatsResources(self.workflows)
        """Resources with their place in the log."""
        self.costs = Costs(costs, appender, ownership=ownership, enforced=enforce_budgets)
        """Budgets, and what was spent."""
        self.llm = Llm(
            llm,
            appender,
            self.costs,
            secrets,
            timeout_seconds=provider_seconds,
            outbound=outbound,
            limits=limits,
            ownership=ownership,
        )
        """Providers of language models, and completions."""
        self.agents = Agents(
            agents,
            appender,
            workflows=self.workflows,
            llm=self.llm,
            costs=self.costs,
            secrets=secrets,
            attempt_seconds=provider_seconds,
            limits=limits,
            ownership=ownership,
        )
        """Agents, and their runs."""
        self.mcp = Mcp(
            mcp,
            appender,
            secrets,
            check_seconds=mcp_check_seconds,
            session_seconds=mcp_session_seconds,
            providers=oauth_providers,
            outbound=outbound,
            redirects=redirects,
            limits=limits,
            ownership=ownership,
        )
        """MCP servers, and the sessions of their users."""

    async def start(self) -> None:
        """Fold the log's snapshot and the records after it, then follow the log.

        Another reader of the log that uses this state has to register its tail afterwards.

        :raises LogCorruptError: the snapshot cannot be read.
        :raises RecordNotApplied: a record cannot be applied, or the log is of a newer format.
        :raises EngineError: ``CONFLICT``: the log's format is too old for this program, or another server
            takes the node's name again and again; ``UNAVAILABLE``.
        """
        await self._folding.start()
        self._has_joined = True
        try:
            await self.nodes.join()
        except EngineError:
            if self.failure is not None:
                raise self.failure from None
            raise
        if self.nodes.is_alone:
            await self._forget_orphaned_secrets()
        await self.costs.start()
        await self.llm.start()
        await self.agents.start()
        await self.mcp.start()
        self._has_started = True

    async def follow_only(self) -> None:
        """Fold the log and follow it, in place of :meth:`start`: join nothing, begin nothing, write nothing.

        For an engine that has the name of a node: one that is alone would save its state at the end.

        :raises LogCorruptError: the snapshot cannot be read.
        :raises RecordNotApplied: a record cannot be applied.
        """
        await self._folding.start()

    async def aclose(self) -> None:
        """Stop what runs, refuse further commands, save the state. Idempotent; the log stays open.

        A log that cannot be written now is not waited for: the next start then reads more records.
        A state that cannot be saved is logged: the next start then reads more records.
        """
        await self.agents.aclose()
        await self.llm.aclose()
        await self.commands.aclose()
        await self.mcp.aclose()
        await self.costs.aclose()
        save = self.keeps_the_log and not self._is_log_away()
        await self.nodes.leave()
        await self._folding.aclose(save=save)

    @property
    def keeps_the_log(self) -> bool:
        """Whether this node saves the state and trims the log; one of them does."""
        return self._ownership.keeps_the_log

    @property
    def failure(self) -> RecordNotApplied | None:
        """Why the engine stopped for good; ``None`` while it has not."""
        return self._folding.failure

    @property
    def skipped(self) -> Mapping[int, Skipped]:
        """The records that an operator had skipped, by offset; known once the engine has started."""
        return self._folding.state.skipped

    def on_failure(self, callback: Callable[[RecordNotApplied], object]) -> None:
        """Call back once, in the event loop, when the engine stops for good: it has to be closed then."""
        self._folding.on_failure = callback

    def _follow(self, record: Record) -> None:
        """Begin what follows from a record: its audit line and the work it asks for.

        It begins here and not in the command, so that a caller that is cancelled, or a crash, cannot come
        between the record and what follows from it.
        """
        if self._audit is not None:
            self._audit(record)
        if not self._has_joined:
            return
        if record.subject.startswith("node."):
            self._take_over()
        self.agents.follow(record)
        self.llm.follow(record)
        self.mcp.follow(record)
        self.costs.follow()

    def _take_over(self) -> None:
        """Begin with the work that belongs to this node since a node has come or gone; let go of the rest."""
        if not self._has_started:
            return
        if not self.nodes.lives:
            self.agents.let_go()
            self.llm.let_go()
        for domain in (self.costs, self.llm, self.agents, self.mcp):
            domain.take_over()

    async def _forget_orphaned_secrets(self) -> None:
        """Remove the secrets that no record names: a crash came between them and their record."""
        named = self.agents.secret_ids() | self.mcp.secret_ids()
        for id_ in self._secrets.ids():
            if id_.startswith(("agent-", "mcp-")) and id_ not in named:
                await self._secrets.remove(id_)

    async def make_durable(self, offset: int) -> None:
        """Save the state if what is saved does not cover the records up to and including this one.

        :raises LogError: it cannot be saved; the state saved before stands.
        """
        if self._folding.saved < offset:
            await self._folding.save()

    def select(self, field: str, arguments: Mapping[str, object]) -> Selection:
        """Tell what a subscription reads.

        :raises EngineError: the arguments name what is not there.
        """
        return STREAMS[field](self, arguments)


STREAMS: Mapping[str, Callable[[Engine, Mapping[str, object]], Selection]] = {
    "resourceUpdates": lambda engine, given: select_resource_updates(engine.workflows, given),
    "workflowEvents": lambda engine, given: select_workflow_events(engine.workflows, given),
    "natsResourceStream": lambda engine, given: engine.nats.select_stream(given),
    "agentExecutionStream": lambda engine, given: engine.agents.select_executions(given),
    "llmStream": lambda engine, given: engine.llm.select_stream(str(given["requestId"])),
    "costUpdates": lambda _engine, given: select_cost_updates(given),
    "mcpServerStatusUpdates": lambda _engine, given: select_status_updates(given),
    "mcpSessionEvents": lambda _engine, given: select_session_events(given),
    "mcpCapabilityUpdates": lambda _engine, given: select_capability_updates(given),
}
"""By subscription field: from coerced arguments to what to read.

An event belongs to a subscription if its record's subject matches, its ``stream`` is the field, and
``matches`` agrees.
"""
