"""One run of an agent, from its start to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, TypedDict, final

import msgspec

from circuit_breaker_server.engine.agents.inputs import LlmConfig, RetryConfig
from circuit_breaker_server.engine.agents.mapping import map_output, output_of, render
from circuit_breaker_server.engine.agents.records import (
    Agent,
    Body,
    ExecutionEnded,
    ExecutionProgressed,
    ExecutionStarted,
    Note,
    StateAgentConfig,
)
from circuit_breaker_server.engine.agents.state import ExecutionEntry
from circuit_breaker_server.engine.batching_writer import Outbox
from circuit_breaker_server.engine.command import ATTEMPTS, Appender
from circuit_breaker_server.engine.command_origin import ORIGIN
from circuit_breaker_server.engine.costs.records import Usage
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.fair_pool import FairPool
from circuit_breaker_server.engine.llm.endpoints import Ask, Endpoint, Outcome, ProviderFailed
from circuit_breaker_server.engine.llm.inputs import ChatMessage
from circuit_breaker_server.engine.llm.routing import Route
from circuit_breaker_server.engine.log_guards import RUN, going_on
from circuit_breaker_server.engine.workflows.inputs import ExecuteActivity
from circuit_breaker_server.engine.workflows.workflows import Workflows
from circuit_breaker_server.log.event_log import ExpectationFailed

__all__ = ["AgentRun"]


class _Names(TypedDict):
    execution_id: str
    agent_id: str
    resource_id: str
    at: str


class _NotInTime(Exception):
    """An attempt took too long."""


_ONCE: Final = RetryConfig(max_attempts=1, backoff_seconds=0, retry_on_errors=())


@final
class AgentRun:
    """Asks the model, records what comes, changes the resource, ends.

    :param route: where the configured provider of the model is asked; ``None`` for the agent's own endpoint,
        whose prices are not known.
    :param attempt_seconds: how long one attempt may take.
    :param turns: the attempts that may be made at once, with a share of each principal.
    :param run_seconds: how long all attempts may take, with the waits for their turns and between them.
    """

    def __init__(
        self,
        *,
        appender: Appender,
        workflows: Workflows,
        agent: Agent,
        config: StateAgentConfig,
        execution: ExecutionEntry,
        endpoint: Endpoint,
        route: Route | None,
        attempt_seconds: float,
        turns: FairPool,
        run_seconds: float,
    ) -> None:
        self._appender = appender
        self._workflows = workflows
        self._agent = agent
        self._config = config
        self._execution = execution
        self._endpoint = endpoint
        self._route = route
        self._attempt_seconds = attempt_seconds
        self._turns = turns
        self._run_seconds = run_seconds
        self._last = execution.last
        self._asked_characters = 0

    async def run(self) -> None:
        """Run to the end. If it is cancelled, it does not record the end: the canceller does.

        :raises EngineError: ``UNAVAILABLE``: the log cannot be written.
        """
        execution = self._execution
        await self._append(ExecutionStarted(**self._names(), input=execution.input))
        outbox = Outbox(self._add, weigh=lambda note: len(msgspec.json.encode(note)))
        await self._endpoint.prepare()
        try:
            try:
                async with asyncio.timeout(self._run_seconds):
                    status, error, content, outcome = await self._attempts(outbox)
            except TimeoutError:
                error = f"not over within {self._run_seconds:g} s, with all attempts and the waits for them"
                status, content, outcome = "TIMEOUT", None, Outcome()
            output = None
            if content is not None:
                output = output_of(content)
                error = await self._change_resource(output)
                if error is not None:
                    await outbox.put(Note(kind="LOG", text=error))
                    status = "FAILED"
            await outbox.flush()
        finally:
            await outbox.aclose()
        usage = None if content is None else self._usage(content, outcome)
        # The usage in it is charged because it is there.
        body = ExecutionEnded(**self._names(), status=status, output=output, error=error, usage=usage)
        await self._append(body)

    async def _attempts(self, outbox: Outbox[Note]) -> tuple[str, str | None, str | None, Outcome]:
        """Ask until an answer is whole or no attempt is left: status, error, answer, what is known of it."""
        retry = self._config.retry_config or _ONCE
        missing: list[str] = []
        messages = render(self._agent.prompts, self._execution.input, missing.append)
        for name in missing:
            text = f"the prompt has {{{name}}}, which the input does not have"
            await outbox.put(Note(kind="LOG", text=text))
        ask = self._ask(messages)
        self._asked_characters = sum(len(message.content) for message in messages)
        attempt = 1
        while True:
            outcome = Outcome()
            pieces: list[str] = []
            try:
                async with self._turns.slot(ORIGIN.get().principal):
                    await self._one_attempt(ask, outcome, pieces, outbox)
                return "COMPLETED", None, "".join(pieces), outcome
            except ProviderFailed as failure:
                kind, error = failure.kind, failure.message
            except _NotInTime:
                kind, error = "timeout", f"not answered within {self._attempt_seconds:g} s"
            if attempt >= retry.max_attempts or not retry.covers(kind, error):
                return "TIMEOUT" if kind == "timeout" else "FAILED", error, None, outcome
            attempt += 1
            await outbox.put(Note(kind="RETRY", text=error, attempt=attempt))
            await asyncio.sleep(retry.backoff_seconds)

    async def _one_attempt(self, ask: Ask, outcome: Outcome, pieces: list[str], outbox: Outbox[Note]) -> None:
        try:
            async with asyncio.timeout(self._attempt_seconds):
                async for piece in self._endpoint.ask(ask, outcome):
                    pieces.append(piece.text)
                    await outbox.put(Note(kind="PROGRESS", text=piece.text))
        except TimeoutError as error:
            raise _NotInTime from error

    def _ask(self, messages: Sequence[ChatMessage]) -> Ask:
        config: LlmConfig = self._config.llm_config or self._agent.llm_config
        return Ask(
            model=self._agent.model,
            messages=messages,
            temperature=config.temperature,
            max_tokens=config.max_tokens,
            top_p=config.top_p,
            frequency_penalty=config.frequency_penalty,
            presence_penalty=config.presence_penalty,
            stop=config.stop_sequences,
        )

    async def _change_resource(self, output: dict[str, object]) -> str | None:
        """Apply the output mapping and the activity; return why it was refused, if it was."""
        resource_id, activity = self._execution.resource_id, self._config.auto_activity
        data = map_output(self._config.output_mapping, output)
        by = f"agent:{self._execution.id}"
        for attempt in range(1, ATTEMPTS + 1):
            try:
                # Not once the run was ended by others, as where this node was declared gone.
                guards = going_on(RUN, self._execution.id, decided_at=self._appender.decided_at())
                if activity is not None:
                    given = ExecuteActivity(resource_id=resource_id, activity_id=activity, data=data)
                    await self._workflows.execute_activity(given, triggered_by=by, guards=guards)
                elif data:
                    await self._workflows.add_data(resource_id, data, guards=guards)
            except EngineError as error:
                if error.code is ErrorCode.UNAVAILABLE:
                    raise
                if error.code is ErrorCode.CONFLICT and attempt < ATTEMPTS:
                    continue
                return str(error)
            break
        return None

    def _usage(self, content: str, outcome: Outcome) -> Usage:
        execution, agent = self._execution, self._agent
        price = None if self._route is None else self._route.price(agent.model)
        prompt, completion = outcome.tokens(
            prompt_characters=self._asked_characters,
            completion_characters=len(content),
            max_tokens=(self._config.llm_config or agent.llm_config).max_tokens,
            model=price,
        )
        return Usage(
            id=self._appender.follow_up_id("execution", execution.id, execution.check),
            user=ORIGIN.get().principal or None,
            project=None,
            provider=agent.provider_type if self._route is None else self._route.provider.name,
            model=agent.model,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost=0.0 if price is None else price.cost_of(prompt, completion),
        )

    def _names(self) -> _Names:
        execution = self._execution
        return {
            "execution_id": execution.id,
            "agent_id": execution.agent_id,
            "resource_id": execution.resource_id,
            "at": self._appender.at(),
        }

    async def _add(self, notes: list[Note]) -> None:
        await self._append(ExecutionProgressed(**self._names(), notes=tuple(notes)))

    async def _append(self, body: Body) -> None:
        try:
            record = await self._appender.append(self._execution.subject, body, expected=self._last)
        except ExpectationFailed as error:
            raise EngineError(
                ErrorCode.CONFLICT, f"run {self._execution.id} was ended by someone else"
            ) from error
        self._last = record.offset
