"""A server without the extras `llm` and `mcp` runs, and says what is missing where it is needed."""

from __future__ import annotations

import sys

import pytest

from circuit_breaker_server.engine.llm.endpoints import Ask, Outcome, ProviderFailed
from circuit_breaker_server.engine.llm.openai_endpoint import OpenAIEndpoint
from circuit_breaker_server.engine.mcp.health_probe import Target, check
from circuit_breaker_server.engine.mcp.records import Retry
from circuit_breaker_server.net.websocket_upgrade import check_picows
from circuit_breaker_server.outbound import Outbound


def test_another_version_of_picows_is_refused_with_what_to_do() -> None:
    check_picows("2.3.1")
    with pytest.raises(ImportError, match=r"2\.4\.0 is installed: pip install 'picows==2\.3\.1'"):
        check_picows("2.4.0")


async def test_without_the_extra_llm_a_provider_fails_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)  # its import raises ModuleNotFoundError
    endpoint = OpenAIEndpoint("http://localhost:1/v1", None, timeout_seconds=1, outbound=Outbound())
    await endpoint.prepare()
    with pytest.raises(ProviderFailed, match=r"circuit-breaker-sdk\[server,llm\]") as failed:
        await anext(endpoint.ask(Ask(model="m", messages=()), Outcome()))
    assert failed.value.kind == "not_installed"
    assert not failed.value.retryable


async def test_without_the_extra_mcp_a_check_fails_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    for name in [name for name in sys.modules if name.startswith("mcp.")]:
        monkeypatch.delitem(sys.modules, name)  # an earlier test may have loaded them
    retry = Retry(
        max_attempts=1, initial_delay_ms=0, max_delay_ms=0, backoff_multiplier=1.0, jitter_factor=0.0
    )
    target = Target(
        endpoint="http://localhost:1/mcp",
        timeout_seconds=1.0,
        max_connections=1,
        retry=retry,
        headers={},
        tls=None,
        outbound=Outbound(),
    )
    finding = await check(target)
    assert not finding.succeeded
    assert "circuit-breaker-sdk[server,mcp]" in (finding.error or "")
