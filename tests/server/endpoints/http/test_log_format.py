"""The route that raises the format of the event log: who may, and how it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from circuit_breaker_server import Server, ServerSettings, TokenSettings
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.record_versions import VERSION
from circuit_breaker_server.security.audit import AuditPaths, read, read_key
from tests.policy_file import EVERY_SCOPE, policy_of
from tests.server.site import Site, site
from tests.server.tokens import SECRET, token

PATH = "/nodes/format"


async def post(
    running: Site, headers: dict[str, str] | None = None, *, body: bytes = b"{}"
) -> tuple[int, dict[str, object]]:
    given = {"Content-Type": "application/json", **(headers or {})}
    async with running.http.post(running.root + PATH, data=body, headers=given) as answer:
        return answer.status, await answer.json()


async def test_a_server_that_is_alone_writes_the_newest_format_already(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        assert await post(running) == (200, {"format": VERSION, "wasRaised": False})


async def test_what_is_no_such_request_is_refused(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        assert (await post(running, {"Content-Type": "text/plain"}))[0] == 415
        assert (await post(running, body=b"[]"))[0] == 400
        assert (await post(running, body=b"{" + b" " * 2000 + b"}"))[0] == 413
        assert (await post(running, {"Origin": "https://elsewhere.example"}))[0] == 403
        async with running.http.get(running.root + PATH) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_a_refusal_of_the_engine_has_a_status_that_says_whether_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals: Iterator[EngineError] = iter(
        (
            EngineError(ErrorCode.CONFLICT, "a does not read it", nodes=["a"]),
            EngineError(ErrorCode.UNAVAILABLE, "the log is away"),
        )
    )

    async def refuse() -> bool:
        raise next(refusals)

    async with site(tmp_path) as running:
        monkeypatch.setattr(running.server.engine.nodes, "raise_format", refuse)
        extensions = {"code": "CONFLICT", "nodes": ["a"]}
        error = {"message": "a does not read it", "extensions": extensions}
        assert await post(running) == (409, {"errors": [error]})
        assert (await post(running))[0] == 503


async def test_only_administrators_of_everything_raise_it_and_a_refusal_is_in_the_audit_log(
    tmp_path: Path,
) -> None:
    policy, data = tmp_path / "policy.toml", tmp_path / "data"
    policy.write_text(policy_of({"ada": ("acme", EVERY_SCOPE)}))
    settings = ServerSettings(
        data_dir=data,
        port=0,
        policy_file=policy,
        token_keys=TokenSettings(key=SECRET),
        log_level="critical",
    )
    async with Server(settings) as server, aiohttp.ClientSession() as http:
        running = Site(server, http)
        assert (await post(running))[0] == 401
        status, told = await post(running, {"Authorization": f"Bearer {token(sub='ada')}"})
        assert (status, "in every tenant" in str(told)) == (403, True)
        assert await post(running, {"Authorization": f"Bearer {token(sub='boss')}"}) == (
            200,
            {"format": VERSION, "wasRaised": False},
        )
    paths = AuditPaths.of(data)
    lines = read(paths.log, read_key(paths.key, {}), paths.anchor)
    assert any("raiseLogFormat" in str(line) and "FORBIDDEN" in str(line) for line in lines)
