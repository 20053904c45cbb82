"""Where users are sent after a sign-in at a provider, and what callers may add to the address of it."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.mcp.inputs import InitiateOAuth
from tests.server.engine.mcp.oauth_provider import corp, oauth
from tests.server.engine.mcp.peers import FakeProvider
from tests.server.engine.mcp.worlds import create_server
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.memory_secrets import MemorySecrets


def engine_with(redirects: tuple[str, ...] | None) -> Engine:
    provider = FakeProvider()
    provider.url = "https://corp.example/token"
    return Engine(
        MemoryLog(), secrets=MemorySecrets(), oauth_providers=(corp(provider),), redirects=redirects
    )


async def begun(engine: Engine, redirect: str | None, **params: str) -> dict[str, list[str]]:
    await engine.start()
    try:
        server_id = await create_server(engine, "http://127.0.0.1:9/mcp", enabled=False, auth=oauth())
        await engine.mcp.servers.toggle(server_id, enabled=True)
        given = InitiateOAuth(
            server_id=server_id, user_id="ada", redirect_uri=redirect, additional_params=params
        )
        value = (await engine.mcp.sign_in.initiate_oauth(given)).value
        return parse_qs(urlsplit(str(value["authorizationUrl"])).query)
    finally:
        await engine.aclose()


@pytest.mark.parametrize(
    "redirect", [None, "https://app.example/back", "http://127.0.0.1:8123/back", "http://localhost/back"]
)
async def test_users_are_sent_to_what_is_configured_or_to_loopback(redirect: str | None) -> None:
    query = await begun(engine_with(None), redirect)
    assert query["redirect_uri"] == [redirect or "https://app.example/back"]


@pytest.mark.parametrize(
    "redirect",
    [
        "https://evil.example/back",
        "https://app.example/back/..",
        "https://app.example/back?to=evil",
        "https://app.example.evil.example/back",
        "http://127.0.0.1.evil.example/",
        "http://a..b/",
        "http://127.0.0.1:99999/",
    ],
)
async def test_users_are_sent_nowhere_else(redirect: str) -> None:
    with pytest.raises(EngineError, match="redirectUri: ") as refused:
        await begun(engine_with(None), redirect)
    assert refused.value.code is ErrorCode.INVALID_INPUT


async def test_the_operator_s_list_holds_for_what_is_configured_and_for_callers() -> None:
    allowed = ("https://app.example/back", "https://other.example/back")
    query = await begun(engine_with(allowed), "https://other.example/back")
    assert query["redirect_uri"] == ["https://other.example/back"]
    with pytest.raises(EngineError, match=r"auth\.oauth\.redirectUri"):
        await begun(engine_with(("https://other.example/back",)), None)


@pytest.mark.parametrize(
    "name", ["request_uri", "request", "response_mode", "Redirect_URI", "registration", "claims", "PROMPT"]
)
async def test_only_parameters_that_are_named_get_into_the_address(name: str) -> None:
    with pytest.raises(EngineError, match="additionalParams: ") as refused:
        await begun(engine_with(None), None, **{name: "x"})
    assert refused.value.code is ErrorCode.INVALID_INPUT
    assert (await begun(engine_with(None), None, prompt="login"))["prompt"] == ["login"]
