"""The commands on language models: providers are configured, completions run."""

from __future__ import annotations

import contextlib
import uuid
from typing import final

import msgspec

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.engine.command import ATTEMPTS, Appender, Committed, Value
from circuit_breaker_server.engine.command_origin import ORIGIN
from circuit_breaker_server.engine.costs.costs import Costs
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.events import Finite, Selection
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.llm.completion_supervisor import CompletionSupervisor
from circuit_breaker_server.engine.llm.endpoint_pool import EndpointPool
from circuit_breaker_server.engine.llm.inputs import ChatCompletion, ProviderConfig
from circuit_breaker_server.engine.llm.records import (
    ProviderConfigured,
    completion_subject,
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
from circuit_breaker_server.engine.nodes.ownership import Ownership
from circuit_breaker_server.engine.secrets import Secrets
from circuit_breaker_server.engine.tenant_quota import TenantQuota
from circuit_breaker_server.engine.turns import Turns
from circuit_breaker_server.engine.validation import (
    check_name,
    refuse,
)
from circuit_breaker_server.log.event_log import ExpectationFailed, Record
from circuit_breaker_server.outbound import Outbound

__all__ = ["Llm"]


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
        ownership: Ownership,
    ) -> None:
        self._state = state
        self._appender = appender
        self._costs = costs
        self._outbound = outbound
        self.endpoints = EndpointPool(secrets, timeout_seconds=timeout_seconds, outbound=outbound)
        """The endpoints of providers, with their open connections."""
        self._completions = CompletionSupervisor(
            state,
            appender,
            costs=costs,
            endpoints=self.endpoints,
            limits=limits,
            ownership=ownership,
        )
        self.take_over = self._completions.take_over
        """Ends the completions that have lost their node, and belong to this one now."""
        self.let_go = self._completions.let_go
        """Stops all completions, and records nothing."""
        self._turns = Turns[tuple[str | None, str]]()
        self._quota = TenantQuota(
            "providers",
            per_tenant=limits.providers_per_tenant,
            total=limits.providers,
            count=lambda tenant: sum(each.tenant == tenant for each in state.providers.values()),
            count_all=lambda: len(state.providers),
            advice="change one of them instead",
        )

    async def start(self) -> None:
        """End the completions that were running when the server stopped."""
        await self._completions.start()

    async def aclose(self) -> None:
        """Stop the completions that run, start none, and close connections. Idempotent."""
        await self._completions.aclose()
        await self.endpoints.aclose()

    def follow(self, record: Record) -> None:
        """Start the completion that a record requests."""
        self._completions.follow(record)

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

        :raises EngineError: ``INVALID_INPUT``, ``RATE_LIMITED``, ``CONFLICT``, ``UNAVAILABLE``.
        """
        self._appender.count_creation()
        check_provider(given, self._outbound.rules)
        tenant = ORIGIN.get().tenant
        if given.api_key_id and self.endpoints.key(given.api_key_id, given.base_url, tenant) is None:
            refuse(
                f"apiKeyId: there is no key {shown(given.api_key_id)} for this address; the operator sets "
                "CIRCUIT_BREAKER_API_KEY_<ID> in the server's environment, and for providers of tenants "
                "CIRCUIT_BREAKER_KEY_TENANTS_<ID> and CIRCUIT_BREAKER_KEY_URLS_<ID>; leave apiKeyId empty "
                "where no key is needed"
            )
        async with self._turns.of((tenant, given.name)):
            for _ in range(ATTEMPTS):
                mine = (p for p in self._state.providers.values() if p.tenant == tenant)
                old = next((p for p in mine if p.name == given.name), None)
                try:
                    with self._quota.place(tenant) if old is None else contextlib.nullcontext():
                        return await self._configure(given, tenant, old)
                except ExpectationFailed:
                    continue
        raise EngineError(
            ErrorCode.CONFLICT, f"provider {shown(given.name)} is being changed by others; try again"
        )

    async def _configure(
        self, given: ProviderConfig, tenant: str | None, old: ProviderEntry | None
    ) -> Committed[Value]:
        at = self._appender.at()
        body = ProviderConfigured(
            id=_provider_id(tenant, given.name) if old is None else old.id,
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
        record = await self._appender.append(
            provider_subject(body.id),
            body,
            expected=0 if old is None else old.last,
            effect=Effect.of(value),
        )
        return self._appender.committed(value, record)

    def route(self, model: str) -> Route:
        """Find the provider of a model, for the tenant of the command that is executed.

        :raises EngineError: ``NOT_FOUND``.
        """
        return find_route(model, self._state.providers.values(), tenant=ORIGIN.get().tenant)

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
        return await self._completions.run(given, payer, route)


_PROVIDERS = uuid.UUID("0d4b5a0e-6f7c-5c46-9d0e-7a1f0c5e2b11")


def _provider_id(tenant: str | None, name: str) -> str:
    """Make the id of a new provider: of two that are made at once under one name, the log takes one."""
    return str(uuid.uuid5(_PROVIDERS, f"{'' if tenant is None else tenant}\0{name}"))


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
