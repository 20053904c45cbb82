"""Start the runs of agents, stop them, and record the end of those that were interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import Final, final

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.agents.lookups import find_agent, find_config, find_execution
from circuit_breaker_server.engine.agents.records import Agent, AgentsTriggered, ExecutionEnded, decode_body
from circuit_breaker_server.engine.agents.run_attempts import AgentRun
from circuit_breaker_server.engine.agents.state import AgentState, ExecutionEntry
from circuit_breaker_server.engine.command import Appender
from circuit_breaker_server.engine.command_origin import ORIGIN, Origin, origin_of
from circuit_breaker_server.engine.costs.costs import Costs
from circuit_breaker_server.engine.errors import EngineError
from circuit_breaker_server.engine.fair_pool import FairPool
from circuit_breaker_server.engine.llm.echo import Echo
from circuit_breaker_server.engine.llm.endpoints import Endpoint
from circuit_breaker_server.engine.llm.llm import Llm
from circuit_breaker_server.engine.llm.routing import ECHO, Route
from circuit_breaker_server.engine.log_guards import RUN, ended
from circuit_breaker_server.engine.nodes.ownership import Ownership
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.engine.workflows.workflows import Workflows
from circuit_breaker_server.log.event_log import ExpectationFailed, Record
from circuit_breaker_server.logs import get_logger

__all__ = ["RunSupervisor", "end_of_run"]

_INTERRUPTED: Final = "interrupted: the server stopped"
_PAUSE_SECONDS: Final = 0.5
"""The pause before the end of a run is recorded again, after the log could not be written."""

logger = get_logger("agents")


@final
class RunSupervisor:
    """Owns the task of each run.

    A run starts because its trigger is in the log, on the node that owns it, and goes on in the background.
    One that has lost its server is ended as FAILED, with the error ``interrupted``: by the server itself when
    it starts again, in a cluster by the node that comes to own it.

    :param ownership: which runs are this node's.
    :param attempt_seconds: how long one attempt of a run may take.
    :param limits: the shares of tenants and principals.
    """

    def __init__(
        self,
        state: AgentState,
        appender: Appender,
        *,
        workflows: Workflows,
        llm: Llm,
        costs: Costs,
        secrets: Secrets,
        attempt_seconds: float,
        limits: CallerLimits,
        ownership: Ownership,
    ) -> None:
        self._ownership = ownership
        self._state = state
        self._appender = appender
        self._workflows = workflows
        self._llm = llm
        self._costs = costs
        self._secrets = secrets
        self._attempt_seconds = attempt_seconds
        self._run_seconds = limits.run_seconds
        self._turns = FairPool(
            "runs of agents",
            slots=limits.runs,
            share=limits.runs_per_principal,
            max_waiting=limits.runs_waiting,
        )
        self._running: dict[str, asyncio.Task[None]] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    async def start(self) -> None:
        """End the runs that were going on when the server stopped."""
        for entry in self._lost():
            with contextlib.suppress(ExpectationFailed):  # another node was faster
                await self._append_end(entry, error=_INTERRUPTED)

    def take_over(self) -> None:
        """End the runs that have lost their node, and belong to this one now."""
        for entry in [] if self._closing else self._lost():
            self._end_later(entry.id)

    def let_go(self) -> None:
        """Stop all runs, and record nothing: this node was declared gone, they belong to others."""
        for task in [*self._running.values(), *self._ending.values()]:
            task.cancel()

    def _lost(self) -> list[ExecutionEntry]:
        return [
            entry
            for entry in self._state.executions.values()
            if entry.completed_at is None
            and entry.id not in self._running
            and entry.id not in self._ending
            and self._is_mine(entry)
        ]

    def _is_mine(self, entry: ExecutionEntry) -> bool:
        return self._ownership.is_mine_as_recorded(f"run/{entry.id}", node=entry.node, term=entry.term)

    async def aclose(self) -> None:
        """Stop the runs, and start none. Idempotent."""
        self._closing = True
        running = [*self._running.values(), *self._ending.values()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def follow(self, record: Record) -> None:
        """Start the runs that a record triggers; stop one that somebody else has ended."""
        if self._closing or not record.subject.startswith(("trigger.", "execution.")):
            return
        body = decode_body(record)
        if isinstance(body, AgentsTriggered):
            origin = origin_of(record).follow_up()
            for run in body.runs:
                entry = find_execution(self._state, run.id)
                if self._is_mine(entry):
                    self._begin(entry, origin)
        elif isinstance(body, ExecutionEnded) and (task := self._running.get(body.execution_id)) is not None:
            origin = origin_of(record)
            if not self._ownership.is_me(node=origin.node, term=origin.term):
                task.cancel()

    def require_room(self, principal: str) -> None:
        """Refuse runs for a principal while too many runs wait for their turn.

        :raises EngineError: ``RATE_LIMITED``.
        """
        self._turns.require_room(principal)

    async def stop(self, execution_id: str) -> None:
        """Cancel the task of a run, if it has one, and wait until it has ended."""
        task = self._running.get(execution_id)
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    # -------------------------------------------------------------------------------------------------------

    def _begin(self, entry: ExecutionEntry, origin: Origin) -> None:
        context = contextvars.Context()
        context.run(ORIGIN.set, origin)
        task = asyncio.get_running_loop().create_task(
            self._run(entry), name=f"agent-run-{entry.id}", context=context
        )
        self._running[entry.id] = task
        task.add_done_callback(lambda _: self._running.pop(entry.id, None))

    async def _run(self, entry: ExecutionEntry) -> None:
        agent = find_agent(self._state, entry.agent_id)
        try:
            config = find_config(self._state, entry.config_id)
            self._costs.require_budget(ORIGIN.get().principal or None, None)
            endpoint, route = await self._endpoint(agent)
        except EngineError as error:
            await self._end(entry.id, error=str(error))
            return
        run = AgentRun(
            appender=self._appender,
            workflows=self._workflows,
            agent=agent,
            config=config,
            execution=entry,
            endpoint=endpoint,
            route=route,
            attempt_seconds=self._attempt_seconds,
            turns=self._turns,
            run_seconds=self._run_seconds,
        )
        try:
            await run.run()
        except EngineError as error:
            # The log could not be written for a moment, or another command has ended the run.
            logger.warning("run_interrupted", execution=entry.id, reason=str(error))
            await self._end(entry.id, error=f"interrupted: {error}")
        except Exception:
            logger.exception("run_failed", execution=entry.id)
            await self._end(entry.id, error="internal error")

    def _end_later(self, execution_id: str) -> None:
        ending = self._end(execution_id, error=_INTERRUPTED)
        task = asyncio.get_running_loop().create_task(ending, name=f"agent-run-end-{execution_id}")
        self._ending[execution_id] = task
        task.add_done_callback(lambda _: self._ending.pop(execution_id, None))

    async def _end(self, execution_id: str, *, error: str) -> None:
        """Record that a run has failed, as soon as the log can be written; nothing if it is over already."""
        while (entry := find_execution(self._state, execution_id)).completed_at is None:
            try:
                await self._append_end(entry, error=error)
            except ExpectationFailed:
                continue
            except EngineError:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _append_end(self, entry: ExecutionEntry, *, error: str) -> None:
        body = end_of_run(entry, at=self._appender.at(), status="FAILED", error=error)
        await self._appender.append(
            entry.subject,
            body,
            expected=entry.last,
            record_id=self._appender.follow_up_id("interrupted", entry.id, entry.check),
            guards=ended(RUN, entry.id, decided_at=self._appender.decided_at()),
        )

    async def _endpoint(self, agent: Agent) -> tuple[Endpoint, Route | None]:
        """Return where an agent is asked, and its provider where one is configured.

        :raises EngineError: ``NOT_FOUND``: no provider serves the model.
        """
        if agent.provider_type == ECHO.provider_type:
            return Echo(), Route(ECHO, "built-in")
        if agent.base_url is not None:
            key = await self._secrets.find(agent.secret_id) if agent.has_key else None
            return self._llm.endpoints.endpoint(agent.base_url, key), None
        route = self._llm.route(agent.model)
        return self._llm.endpoints.endpoint_of(route.provider), route


def end_of_run(entry: ExecutionEntry, *, at: str, status: str, error: str | None = None) -> ExecutionEnded:
    """Return the body of the record that ends a run without an answer."""
    return ExecutionEnded(
        execution_id=entry.id,
        agent_id=entry.agent_id,
        resource_id=entry.resource_id,
        at=at,
        status=status,
        error=error,
    )
