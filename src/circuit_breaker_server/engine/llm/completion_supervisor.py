"""Start completions, stop them, and record the end of those that were interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from typing import Final, final

import msgspec

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.command import Appender, Committed, Value
from circuit_breaker_server.engine.command_origin import ORIGIN, origin_of
from circuit_breaker_server.engine.costs.costs import Costs
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.fair_pool import FairPool
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.llm.completion import CompletionRun
from circuit_breaker_server.engine.llm.endpoint_pool import EndpointPool
from circuit_breaker_server.engine.llm.inputs import ChatCompletion
from circuit_breaker_server.engine.llm.records import (
    CompletionFailed,
    CompletionRequested,
    completion_subject,
    decode_body,
)
from circuit_breaker_server.engine.llm.routing import Route
from circuit_breaker_server.engine.llm.state import CompletionEntry, LlmState
from circuit_breaker_server.engine.nodes.ownership import Ownership
from circuit_breaker_server.log.event_log import ExpectationFailed, Record
from circuit_breaker_server.logs import get_logger

__all__ = ["CompletionSupervisor"]

_INTERRUPTED: Final = "interrupted: the server stopped"
_PAUSE_SECONDS: Final = 0.5
"""Before the end of a completion is recorded again, where the log could not be written."""
_MAX_OPEN: Final = 1_000
"""Requests that may be in the log or not, as a broker went away while they were appended."""

_log = get_logger("llm")


@final
class _Request:
    """A completion between the command that asks for it and its run.

    The messages are not in the log, so the run takes them from here.

    :ivar payer: the user that is charged, if no project is; ``None``: no user is known.
    :ivar context: of the caller: its idempotency key belongs to the run's last record.
    :ivar run: set when its record is in the log.
    """

    __slots__ = ("context", "given", "payer", "route", "run")

    def __init__(self, given: ChatCompletion, payer: str | None, route: Route) -> None:
        self.given = given
        self.payer = payer
        self.route = route
        self.context = contextvars.copy_context()
        self.context.run(ORIGIN.set, ORIGIN.get().follow_up())
        self.run: asyncio.Task[Committed[Value]] | None = None


@final
class CompletionSupervisor:
    """Owns the task of each completion.

    A completion runs because its request is in the log, and outlives the caller that waits for it.

    :param limits: the shares of principals.
    :param ownership: which completions are this node's.
    """

    def __init__(
        self,
        state: LlmState,
        appender: Appender,
        *,
        costs: Costs,
        endpoints: EndpointPool,
        limits: CallerLimits,
        ownership: Ownership,
    ) -> None:
        self._ownership = ownership
        self._state = state
        self._appender = appender
        self._costs = costs
        self._endpoints = endpoints
        self._turns = FairPool(
            "completions",
            slots=limits.completions,
            share=limits.completions_per_principal,
            max_waiting=limits.completions_waiting,
            wait_seconds=limits.completion_wait_seconds,
        )
        self._completion_seconds = limits.completion_seconds
        self._requests: dict[str, _Request] = {}
        self._open: deque[str] = deque()
        self._running: dict[str, asyncio.Task[Committed[Value]]] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    async def start(self) -> None:
        """End the completions that were running when the server stopped."""
        for entry in self._lost():
            with contextlib.suppress(ExpectationFailed):  # another node was faster
                await self._append_interrupted(entry, _INTERRUPTED)

    def take_over(self) -> None:
        """End the completions that have lost their node, and belong to this one now."""
        for entry in [] if self._closing else self._lost():
            self._end_later(entry.request_id, _INTERRUPTED)

    def let_go(self) -> None:
        """Stop all completions, and record nothing: this node was declared gone, they belong to others."""
        for task in [*self._running.values(), *self._ending.values()]:
            task.cancel()

    def _lost(self) -> list[CompletionEntry]:
        return [
            entry
            for entry in self._state.completions.values()
            if entry.ended_at is None
            and entry.request_id not in self._running
            and entry.request_id not in self._ending
            and self._is_mine(entry)
        ]

    def _is_mine(self, entry: CompletionEntry) -> bool:
        work = f"completion/{entry.request_id}"
        return self._ownership.is_mine_as_recorded(work, node=entry.node, term=entry.term)

    async def aclose(self) -> None:
        """Stop the completions that run, and start none. Idempotent."""
        self._closing = True
        running = [*self._running.values(), *self._ending.values()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def follow(self, record: Record) -> None:
        """Start the completion that a record requests; stop one that somebody else has ended."""
        if self._closing or not record.subject.startswith("completion."):
            return
        body = decode_body(record)
        if isinstance(body, CompletionFailed):
            self._stop_if_ended_elsewhere(body.request_id, record)
        if not isinstance(body, CompletionRequested):
            return
        entry, request = self._state.completions.get(body.request_id), self._requests.pop(record.id, None)
        if entry is None or not self._is_mine(entry):
            return
        if request is None:
            # Of this server before it was started again: what was sent then has been stored now.
            self._end_later(body.request_id, _INTERRUPTED)
            return
        run = CompletionRun(
            self._appender,
            self._costs,
            request.given,
            payer=request.payer,
            route=request.route,
            requested=record,
            turns=self._turns,
            seconds=self._completion_seconds,
        )
        endpoint = self._endpoints.endpoint_of(request.route.provider)
        request.run = asyncio.get_running_loop().create_task(run.run(endpoint), context=request.context)
        self._running[body.request_id] = request.run
        request.run.add_done_callback(lambda task: self._ended(body.request_id, task))

    def _stop_if_ended_elsewhere(self, request_id: str, record: Record) -> None:
        origin, task = origin_of(record), self._running.get(request_id)
        if task is not None and not self._ownership.is_me(node=origin.node, term=origin.term):
            task.cancel()

    async def run(self, given: ChatCompletion, payer: str | None, route: Route) -> Committed[Value]:
        """Record the request of a completion, and wait for its end; answers ``LlmResponseGQL``.

        :param payer: the user who pays, if no project does.
        :raises EngineError: ``CONFLICT``, ``PROVIDER_FAILED``, ``RATE_LIMITED``, ``UNAVAILABLE``.
        """
        self._turns.require_room(ORIGIN.get().principal)
        request_id = self._appender.new_id() if given.request_id is None else given.request_id
        given = msgspec.structs.replace(given, request_id=request_id)
        body = CompletionRequested(
            request_id=request_id,
            at=self._appender.at(),
            model=given.model,
            provider_id=route.provider.id,
            streaming=bool(given.stream),
            asked_by=ORIGIN.get().principal,
        )
        record_id, request = self._appender.record_id(), _Request(given, payer, route)
        self._requests[record_id] = request
        try:
            await self._appender.append_own(
                completion_subject(request_id),
                body,
                expected=0,
                conflict=f"requestId: {shown(request_id)} was used before; use another id",
                record_id=record_id,
                effect=Effect(None),
            )
        except EngineError as error:
            if error.may_have_happened:
                # The tail may deliver the record later: it then begins as any other.
                self._keep_open(record_id)
            elif self._requests.get(record_id) is request:
                del self._requests[record_id]
            raise
        if request.run is None:
            raise EngineError(
                ErrorCode.UNAVAILABLE,
                "the server is stopping, or was taken for gone: the completion was not begun",
            )
        await asyncio.wait((request.run,))
        if request.run.cancelled():
            raise EngineError(ErrorCode.UNAVAILABLE, "the server stopped before the completion was whole")
        return request.run.result()

    # -------------------------------------------------------------------------------------------------------

    def _keep_open(self, record_id: str) -> None:
        self._open.append(record_id)
        if len(self._open) > _MAX_OPEN:
            self._requests.pop(self._open.popleft(), None)

    def _ended(self, request_id: str, task: asyncio.Task[Committed[Value]]) -> None:
        self._running.pop(request_id, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, EngineError):
            _log.error("completion_failed", exc_info=error)
        entry = self._state.completions.get(request_id)
        if entry is not None and entry.ended_at is None and not self._closing and self._is_mine(entry):
            # The log could not be written, or a defect of ours: readers of the stream must not wait for ever.
            self._end_later(
                request_id, f"interrupted: {error}" if isinstance(error, EngineError) else "internal error"
            )

    def _end_later(self, request_id: str, reason: str) -> None:
        ending = asyncio.get_running_loop().create_task(self._interrupt(request_id, reason))
        self._ending[request_id] = ending
        ending.add_done_callback(lambda _: self._ending.pop(request_id, None))

    async def _interrupt(self, request_id: str, reason: str) -> None:
        """Record that a completion has failed, as soon as the log can be written."""
        while (entry := self._state.completions.get(request_id)) is not None and entry.ended_at is None:
            try:
                await self._append_interrupted(entry, reason)
            except ExpectationFailed:
                continue
            except EngineError:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _append_interrupted(self, entry: CompletionEntry, error: str) -> None:
        body = CompletionFailed(
            request_id=entry.request_id,
            at=self._appender.at(),
            provider_id=entry.provider_id,
            latency_ms=0,
            streaming=entry.streaming,
            error=error,
            blames_provider=False,
        )
        record_id = self._appender.follow_up_id("interrupted", entry.request_id, entry.check)
        await self._appender.append(
            completion_subject(entry.request_id), body, expected=entry.last, record_id=record_id
        )
