"""The fuzzers find nothing in what we have, and something where there is something to find."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from circuit_breaker_sdk.protocol.messages import Next
from circuit_breaker_sdk.protocol.next_prefix import PrefixRoutes
from circuit_breaker_sdk.protocol.transport_ws import ClientProtocol, ServerProtocol
from tests.server.keyed import serving
from tests.system.attack.fuzz import (
    FuzzResult,
    fuzz_client_protocol,
    fuzz_server_protocol,
    fuzz_server_socket,
)
from tests.system.attack.fuzz_http import fuzz_polls, fuzz_requests

SEEDS = (1, 2, 3)
COUNT = 2_000


def assert_clean(result: FuzzResult) -> None:
    assert result.passed, result.findings
    assert result.messages == COUNT
    assert sum(result.closes.values()) == result.connections


@pytest.mark.parametrize("seed", SEEDS)
def test_no_message_breaks_the_server_protocol(seed: int) -> None:
    result = fuzz_server_protocol(seed, COUNT)
    assert_clean(result)
    assert {4400, 4401, 4429, 1002, 1007} <= set(result.closes), "the fuzzer does not get far"


@pytest.mark.parametrize("seed", SEEDS)
def test_no_message_breaks_the_client_protocol(seed: int) -> None:
    result = fuzz_client_protocol(seed, COUNT)
    assert_clean(result)
    assert result.closes[0] > 10, "the fuzzer does not get far"


@pytest.mark.parametrize("run", [fuzz_server_protocol, fuzz_client_protocol])
def test_equal_seeds_give_equal_results_and_others_do_not(run: Callable[[int, int], FuzzResult]) -> None:
    first, again, other = (run(seed, 500) for seed in (7, 7, 8))
    assert first == again
    assert first.closes != other.closes


async def test_no_frame_breaks_a_running_server(tmp_path: Path) -> None:
    async with serving(tmp_path) as url:
        result = await fuzz_server_socket(url, 1, COUNT)
    assert_clean(result)
    assert {1002, 1007, 4400} <= set(result.closes), "the fuzzer does not get far"


@pytest.mark.parametrize("fuzz", [fuzz_requests, fuzz_polls])
async def test_no_request_and_no_poll_breaks_a_running_server(
    tmp_path: Path, fuzz: Callable[..., Awaitable[FuzzResult]]
) -> None:
    async with serving(tmp_path) as url:
        result = await fuzz(urlsplit(url).port, 1, 300, token="any")
    assert result.passed, result.findings
    assert result.messages == 300
    assert {200, 400} <= set(result.closes), "the fuzzer does not get far"


def test_an_exception_is_found_and_named_with_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ClientProtocol.receive_message

    def receive(self: ClientProtocol, data: bytes) -> None:
        if b"\xff" in data:
            raise KeyError("broken")
        original(self, data)

    monkeypatch.setattr(ClientProtocol, "receive_message", receive)
    result = fuzz_client_protocol(1, COUNT)
    assert not result.passed
    assert "KeyError" in result.findings[0]
    assert "\\xff" in result.findings[0]
    assert "FAILED" in result.line()


def test_an_answer_after_the_close_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ServerProtocol.receive_message

    def receive(self: ServerProtocol, data: bytes) -> None:
        if self.close is not None:
            self._outbox.append(b'{"type":"pong"}')
        original(self, data)

    monkeypatch.setattr(ServerProtocol, "receive_message", receive)
    assert any("answer after the close" in finding for finding in fuzz_server_protocol(1, COUNT).findings)


def test_a_fast_route_that_differs_from_the_codec_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    learn = PrefixRoutes.learn

    def wrong(self: PrefixRoutes[str], data: bytes, message: Next) -> None:
        learn(self, data, message)
        for prefix in self.by_prefix:
            self.by_prefix[prefix] = "another"

    monkeypatch.setattr(PrefixRoutes, "learn", wrong)
    assert any("fast route" in finding for finding in fuzz_client_protocol(1, COUNT).findings)
