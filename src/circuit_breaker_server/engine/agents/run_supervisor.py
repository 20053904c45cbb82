"""Start the runs of agents, stop them, and record the end of those that were interrupted."""

from __future__ import annotations

import asyncio
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
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.engine.workflows.workflows import Workflows
from circuit_breaker_server.log.event_log import ExpectationFailed, Record
from circuit_breaker_server.logs import get_logger

__all__ = ["RunSupervisor", "end_of_run"]

_PAUSE_SECONDS: Final = 0.5
"""The pause before the end of a run is recorded again, after the log could not be written."""

logger = get_logger("agents")


@final
class RunSupervisor:
    """Owns the task of each run.

    A run starts because its trigger is in the log, and goes on in the background; one that runs when the
    server stops is ended as FAILED, with the error ``interrupted``, when it starts again.

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
    ) -> None:
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
        self._closing = False

    async def start(self) -> None:
        """End the runs that were going on when the server stopped."""
        for entry in self._state.executions.values():
            if entry.completed_at is None:
                record_id = self._appender.follow_up_id("interrupted", entry.id, entry.check)
                error = "interrupted: the server stopped"
                body = end_of_run(entry, at=self._appender.at(), status="FAILED", error=error)
                await self._appender.append(entry.subject, body, expected=entry.last, record_id=record_id)

    async def aclose(self) -> None:
        """Stop the runs, and start none. Idempotent."""
        self._closing = True
        running = list(self._running.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def follow(self, record: Record) -> None:
        """Start the runs that a record triggers."""
        if self._closing or not record.subject.startswith("trigger."):
            return
        body = decode_body(record)
        if isinstance(body, AgentsTriggered):
            origin = origin_of(record).follow_up()
            for run in body.runs:
                self._begin(find_execution(self._state, run.id), origin)

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
            endpoint, route = self._endpoint(agent)
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

    async def _end(self, execution_id: str, *, error: str) -> None:
        """Record that a run has failed, as soon as the log can be written; nothing if it is over already."""
        while (entry := find_execution(self._state, execution_id)).completed_at is None:
            body = end_of_run(entry, at=self._appender.at(), status="FAILED", error=error)
            try:
                await self._appender.append(entry.subject, body, expected=entry.last)
            except ExpectationFailed:
                continue
            except EngineError:
                await asyncio.sleep(_PAUSE_SECONDS)

    def _endpoint(self, agent: Agent) -> tuple[Endpoint, Route | None]:
        """Return where an agent is asked, and its provider where one is configured.

        :raises EngineError: ``NOT_FOUND``: no provider serves the model.
        """
        if agent.provider_type == ECHO.provider_type:
            return Echo(), Route(ECHO, "built-in")
        if agent.base_url is not None:
            key = self._secrets.get(agent.secret_id) if agent.has_key else None
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
