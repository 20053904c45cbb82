"""Pages in a browser use the server only from its own origin and from those that are named."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.runtime import Stop
from circuit_breaker_sdk.cli.serve import serve, settings_reader
from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.admission.origins import Origins

ALLOWED = "https://app.example.com"
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "graphql-transport-ws",
}


@pytest.mark.parametrize(
    ("origin", "host", "secure", "passes"),
    [
        (None, "localhost:4000", False, True),
        (ALLOWED, "localhost:4000", False, True),
        ("https://APP.example.com:443", "x", False, True),
        ("http://app.example.com", "x", False, False),
        ("https://app.example.com.evil.example", "x", False, False),
        ("https://app.example.com:8443", "x", False, False),
        ("https://app.example.com/", "x", False, False),
        ("null", "localhost:4000", False, False),
        ("", "localhost:4000", False, False),
        (f"{ALLOWED}, {ALLOWED}", "x", False, False),
        ("http://localhost:4000", "localhost:4000", False, True),
        ("http://localhost:3000", "localhost:4000", False, False),
        ("http://[::1]:4000", "[::1]:4000", False, True),
        ("https://example.com", "example.com", False, True),
        ("https://example.com", "example.com:443", True, True),
        ("http://example.com", "example.com", True, False),
        ("http://example.com", None, False, False),
        ("http://[", "[", False, False),
        ("http://x:y", "x:y", False, False),
    ],
)
def test_an_origin_is_compared_exactly(
    origin: str | None, host: str | None, secure: bool, passes: bool
) -> None:
    refusal = Origins([ALLOWED]).refusal(origin, host=host, secure=secure)
    assert (refusal is None) is passes
    assert passes or "allowed_origins" in str(refusal)


@pytest.mark.parametrize(
    "wrong", ["*", "null", "https://x/", "x.example", "ftp://x", "https://*.x", "https://x:y"]
)
def test_what_is_no_origin_cannot_be_allowed(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"allowed_origins: .* is no origin; write https://"):
        ServerSettings(data_dir=Path("x"), allowed_origins=(wrong,))


async def test_posts_and_upgrades_of_other_pages_are_refused_and_those_of_named_ones_answered(
    tmp_path: Path,
) -> None:
    settings = ServerSettings(data_dir=tmp_path, port=0, allowed_origins=(ALLOWED,))
    async with Server(settings) as server, aiohttp.ClientSession() as http:
        url = server.url
        for origin in ("https://evil.example", "null"):
            for path in (url, url + "/poll"):
                async with http.post(
                    path, json={"query": "{ health }"}, headers={"Origin": origin}
                ) as answer:
                    error = (await answer.json())["errors"][0]
                    assert (answer.status, error["extensions"]["code"]) == (403, "ORIGIN_NOT_ALLOWED")
                    assert "Access-Control-Allow-Origin" not in answer.headers
                async with http.options(path, headers={"Origin": origin}) as answer:
                    assert answer.status == 403
            async with http.get(url, headers={**WEBSOCKET, "Origin": origin}) as answer:
                assert answer.status == 403
                assert "--allowed-origin" in await answer.text()
        async with http.post(url, json={"query": "{ health }"}, headers={"Origin": ALLOWED}) as answer:
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, ALLOWED)
            assert answer.headers["Vary"] == "Origin"
        for path in (url, url + "/poll"):
            async with http.options(path, headers={"Origin": ALLOWED}) as answer:
                assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, ALLOWED)
                allowed = answer.headers["Access-Control-Allow-Headers"].split(", ")
                assert {"Authorization", "Resume-Version", "Resume-Traces"} <= {*allowed}
                assert {"traceparent", "tracestate"} <= {*allowed}
        own = url.removesuffix("/graphql")
        async with http.post(url, json={"query": "{ health }"}, headers={"Origin": own}) as answer:
            assert answer.status == 200
        for origin in (ALLOWED, own):
            async with http.ws_connect(url, origin=origin, protocols=("graphql-transport-ws",)) as socket:
                assert socket.protocol == "graphql-transport-ws"


async def test_serve_says_what_is_no_origin(capsys: pytest.CaptureFixture[str]) -> None:
    code = await serve(
        Stop(), settings_reader(None, (), {"--allowed-origin": ("network.allowed_origins", ("*",))})
    )
    assert code == ExitCode.USAGE
    assert "'*' is no origin" in capsys.readouterr().err
