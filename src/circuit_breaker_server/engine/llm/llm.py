"""The commands on language models: providers are configured, completions run."""

from __future__ import annotations

import asyncio
import contextvars
from collections import OrderedDict
from typing import Final, final

import msgspec

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.command import Appender, Committed, Value
from circuit_breaker_server.engine.command_origin import ORIGIN
from circuit_breaker_server.engine.costs.costs import Costs
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.events import Finite, Selection
from circuit_breaker_server.engine.fair_pool import FairPool
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.llm.completion import CompletionRun
from circuit_breaker_server.engine.llm.echo import Echo
from circuit_breaker_server.engine.llm.endpoints import Endpoint
from circuit_breaker_server.engine.llm.inputs import ChatCompletion, ProviderConfig
from circuit_breaker_server.engine.llm.openai_endpoint import OpenAIEndpoint
from circuit_breaker_server.engine.llm.records import (
    CompletionFailed,
    CompletionRequested,
    ProviderConfigured,
    completion_subject,
    decode_body,
    provider_subject,
)
from circuit_breaker_server.engine.llm.routing import ECHO, Route, find_route
from circuit_breaker_server.engine.llm.state import (
    CompletionEntry,
    LlmState,
    ProviderEntry,
    configured,
    is_too_old,
)
from circuit_breaker_server.engine.llm.streams import ends
from circuit_breaker_server.engine.llm.validation import check_completion, check_provider
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.engine.tenant_quota import TenantQuota
from circuit_breaker_server.engine.validation import (
    check_name,
    refuse,
)
from circuit_breaker_server.log.event_log import ExpectationFailed, Record
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.outbound import Outbound

__all__ = ["Llm"]

MAX_ENDPOINTS: Final = 64
"""Endpoints whose connections are kept, as long as they do not answer all at once."""

_PAUSE_SECONDS: Final = 0.5
"""Before the end of a completion is recorded again, where the log could not be written."""

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
class Llm:
    """Providers and completions.

    A completion runs because its request is in the log, and outlives the caller that waits for it.

    :param timeout_seconds: for each wait for a provider.
    :param outbound: what is observed towards providers.
    :param limits: the shares of tenants and principals.

    Example::

        done = await engine.llm.complete(ChatCompletion(model="echo", messages=(ChatMessage(...),)))
    """

    def __init__(
        self,
        state: LlmState,
        appender: Appender,
        costs: Costs,
        secrets: Secrets,
        *,
        timeout_seconds: float,
        outbound: Outbound,
        limits: CallerLimits,
    ) -> None:
        self._state = state
        self._appender = appender
        self._costs = costs
        self._secrets = secrets
        self._timeout_seconds = timeout_seconds
        self._outbound = outbound
        self._turns = FairPool(
            "completions",
            slots=limits.completions,
            share=limits.completions_per_principal,
            max_waiting=limits.completions_waiting,
            wait_seconds=limits.completion_wait_seconds,
        )
        self._completion_seconds = limits.completion_seconds
        self._configuring = asyncio.Lock()
        self._quota = TenantQuota(
            "providers",
            per_tenant=limits.providers_per_tenant,
            total=limits.providers,
            count=lambda tenant: sum(each.tenant == tenant for each in state.providers.values()),
            count_all=lambda: len(state.providers),
            advice="change one of them instead",
        )
        self._endpoints: OrderedDict[tuple[str, str | None], OpenAIEndpoint] = OrderedDict()
        self._requests: dict[str, _Request] = {}
        self._running: set[asyncio.Task[Committed[Value]]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._closing = False

    async def start(self) -> None:
        """End the completions that were running when the server stopped."""
        for entry in self._state.completions.values():
            if entry.ended_at is None:
                await self._append_interrupted(entry, "interrupted: the server stopped")

    async def aclose(self) -> None:
        """Stop the completions that run, start none, and close connections. Idempotent."""
        self._closing = True
        running = [*self._running, *self._ending]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        endpoints, self._endpoints = self._endpoints, OrderedDict()
        for endpoint in endpoints.values():
            await endpoint.aclose()

    def follow(self, record: Record) -> None:
        """Start the completion that a record requests."""
        if self._closing or not record.subject.startswith("completion."):
            return
        body = decode_body(record)
        if not isinstance(body, CompletionRequested):
            return
        request = self._requests.pop(record.id, None)
        if request is None:
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
        endpoint = self.endpoint_of(request.route.provider)
        request.run = asyncio.get_running_loop().create_task(run.run(endpoint), context=request.context)
        self._running.add(request.run)
        request.run.add_done_callback(lambda task: self._ended(body.request_id, task))

    # --- queries ---

    def providers(self) -> list[Value]:
        """Return all providers as ``LlmProviderGQL``, the built-in one first."""
        return [_provider_value(entry) for entry in (ECHO, *self._state.providers.values())]

    def count(self) -> int:
        """Tell how many providers there are, the built-in one among them."""
        return 1 + len(self._state.providers)

    def provider(self, provider_id: str) -> Value | None:
        """Return a provider as ``LlmProviderGQL``, ``None`` if there is none."""
        entry = ECHO if provider_id == ECHO.id else self._state.providers.get(provider_id)
        return None if entry is None else _provider_value(entry)

    def name_and_tenant(self, provider_id: str) -> tuple[str, str | None] | None:
        """Return a provider's name and its tenant (``None``: the operator's); ``None`` if there is none."""
        entry = ECHO if provider_id == ECHO.id else self._state.providers.get(provider_id)
        return None if entry is None else (entry.name, entry.tenant)

    def asked_by(self, request_id: str) -> str | None:
        """Return the principal of a completion, empty without authentication; ``None`` if there is none."""
        entry = self._state.completions.get(request_id)
        return None if entry is None else entry.asked_by

    def select_stream(self, request_id: str) -> Selection:
        """Tell what ``llmStream`` reads.

        :raises EngineError: ``INVALID_INPUT``: no request could have the id.
        """
        check_name(request_id, "requestId")

        def start() -> Cursor | None:
            entry = self._state.completions.get(request_id)
            if entry is None:
                return None
            self._require_readable(entry)
            return Cursor(self._appender.epoch, entry.created, 0, entry.check)

        def is_over() -> bool:
            entry = self._state.completions.get(request_id)
            return entry is not None and entry.ended_at is not None

        missing = f"no completion with the requestId {shown(request_id)} was requested in time"
        return Selection((completion_subject(request_id),), finite=Finite(start, is_over, ends, missing))

    def _require_readable(self, entry: CompletionEntry) -> None:
        if not entry.streaming:
            refuse(f"requestId: completion {shown(entry.request_id)} is not streamed: ask for it with stream")
        if is_too_old(entry.ended_at, self._appender.now()):
            raise EngineError(
                ErrorCode.NOT_FOUND, f"the stream of completion {shown(entry.request_id)} is over for a day"
            )

    # --- commands ---

    async def configure_provider(self, given: ProviderConfig) -> Committed[Value]:
        """Add a provider to the caller's tenant, or change its provider of that name.

        Answers ``LlmProviderGQL``. A caller of every tenant configures the operator's providers.

        :raises EngineError: ``INVALID_INPUT``, ``RATE_LIMITED``, ``UNAVAILABLE``.
        """
        self._appender.count_creation()
        check_provider(given, self._outbound.rules)
        tenant = ORIGIN.get().tenant
        if given.api_key_id and self._key(given.api_key_id, given.base_url, tenant) is None:
            refuse(
                f"apiKeyId: there is no key {shown(given.api_key_id)} for this address; the operator sets "
                "CIRCUIT_BREAKER_API_KEY_<ID> in the server's environment, and for providers of tenants "
                "CIRCUIT_BREAKER_KEY_TENANTS_<ID> and CIRCUIT_BREAKER_KEY_URLS_<ID>; leave apiKeyId empty "
                "where no key is needed"
            )
        async with self._configuring:
            mine = (p for p in self._state.providers.values() if p.tenant == tenant)
            old = next((p for p in mine if p.name == given.name), None)
            if old is None:
                self._quota.require(tenant)
            at = self._appender.at()
            body = ProviderConfigured(
                id=self._appender.new_id() if old is None else old.id,
                provider_type=given.provider_type,
                name=given.name,
                base_url=given.base_url,
                api_key_id=given.api_key_id,
                models=given.models,
                created_at=at if old is None else old.created_at,
                updated_at=at,
                tenant=tenant,
            )
            value = _provider_value(configured(body, created=0, last=0))
            record = await self._appender.append_own(
                provider_subject(body.id),
                body,
                expected=0 if old is None else old.last,
                conflict=f"provider {shown(given.name)} was changed by another operation first; try again",
                effect=Effect.of(value),
            )
        return self._appender.committed(value, record)

    def route(self, model: str) -> Route:
        """Find the provider of a model, for the tenant of the command that is executed.

        :raises EngineError: ``NOT_FOUND``.
        """
        return find_route(model, self._state.providers.values(), tenant=ORIGIN.get().tenant)

    def endpoint(self, base_url: str, api_key: str | None) -> Endpoint:
        """Return where to ask; the connections of the endpoints that were used last are kept."""
        key = (base_url, api_key)
        found = self._endpoints.get(key)
        if found is None:
            self._close_idle_endpoints()
            found = OpenAIEndpoint(
                base_url, api_key, timeout_seconds=self._timeout_seconds, outbound=self._outbound
            )
            self._endpoints[key] = found
        self._endpoints.move_to_end(key)
        return found

    def _close_idle_endpoints(self) -> None:
        """Make room for one more endpoint; those that are answering stay."""
        excess = len(self._endpoints) + 1 - MAX_ENDPOINTS
        idle = [key for key, endpoint in self._endpoints.items() if endpoint.is_idle]
        for key in idle[: max(0, excess)]:
            closing = asyncio.get_running_loop().create_task(self._endpoints.pop(key).aclose())
            self._ending.add(closing)
            closing.add_done_callback(self._ending.discard)

    def endpoint_of(self, provider: ProviderEntry) -> Endpoint:
        """Return where a provider is asked."""
        if provider.id == ECHO.id:
            return Echo()
        api_key = None
        if provider.api_key_id:
            api_key = self._key(provider.api_key_id, provider.base_url, provider.tenant)
        return self.endpoint(provider.base_url, api_key)

    def _key(self, id_: str, base_url: str, tenant: str | None) -> str | None:
        return self._secrets.api_key(id_, base_url=base_url, tenant=tenant)

    async def complete(self, given: ChatCompletion) -> Committed[Value]:
        """Run a completion to its end; answers ``LlmResponseGQL``. Cancelling the caller does not stop it.

        Under a key it never runs twice: the record that reserves the id takes the key, the last one has the
        answer, or the provider's failure. In between, the key has a claim and no answer.

        :raises EngineError: ``INVALID_INPUT``, ``NOT_FOUND``, ``CONFLICT``, ``PROVIDER_FAILED``,
            ``RATE_LIMITED``, ``BUDGET_EXHAUSTED``, ``UNAVAILABLE``.
        """
        check_completion(given)
        payer = given.user or ORIGIN.get().principal or None
        self._costs.require_budget(payer, given.project_id)
        route = self.route(given.model)
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
        except EngineError:
            self._requests.pop(record_id, None)
            raise
        if request.run is None:
            raise EngineError(ErrorCode.UNAVAILABLE, "the server is stopping: the completion was not begun")
        await asyncio.wait((request.run,))
        if request.run.cancelled():
            raise EngineError(ErrorCode.UNAVAILABLE, "the server stopped before the completion was whole")
        return request.run.result()

    def _ended(self, request_id: str, task: asyncio.Task[Committed[Value]]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, EngineError):
            _log.error("completion_failed", exc_info=error)
        entry = self._state.completions.get(request_id)
        if entry is not None and entry.ended_at is None and not self._closing:
            # The log could not be written, or a defect of ours: readers of the stream must not wait for ever.
            reason = f"interrupted: {error}" if isinstance(error, EngineError) else "internal error"
            ending = asyncio.get_running_loop().create_task(self._interrupt(request_id, reason))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

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


def _provider_value(entry: ProviderEntry) -> Value:
    return {
        "id": entry.id,
        "providerType": entry.provider_type,
        "name": entry.name,
        "tenant": entry.tenant,
        "baseUrl": entry.base_url,
        "models": [msgspec.to_builtins(model) for model in entry.models],
        "healthStatus": entry.health_value(),
        "createdAt": entry.created_at,
        "updatedAt": entry.updated_at,
    }
