"""Where tokens come from, how long they last, and that their source is asked no more than it must be."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from circuit_breaker_sdk.connections.connection_replacement import rotate
from circuit_breaker_sdk.connections.tokens import Tokens, expiry_of
from circuit_breaker_sdk.errors import ConnectionFailed, UsageError
from tests.connections.clock import Clock


def jwt(**claims: object) -> str:
    payload = urlsafe_b64encode(msgspec.json.encode(claims)).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


def test_only_a_jwt_with_an_end_has_an_end() -> None:
    assert expiry_of(jwt(exp=1234, sub="me")) == 1234
    for other in ("opaque", "a.b", jwt(sub="me"), jwt(exp="soon"), "a.!.c", "a.bm8.c"):
        assert expiry_of(other) is None


def test_it_is_renewed_a_minute_before_its_end_or_a_fifth_of_a_short_life() -> None:
    clock = Clock()
    for life, early in ((3600, 60), (100, 20)):
        token = jwt(exp=clock.now + life)
        tokens = Tokens(lambda t=token: t, clock=clock)  # type: ignore[misc]
        assert tokens.seconds_to_refresh() is None
        asyncio.run(tokens.ready())
        assert tokens.seconds_to_refresh() == life - early
    assert Tokens(jwt(exp=clock.now + 3600), clock=clock).seconds_to_refresh() is None


async def test_the_source_is_asked_once_for_all_who_wait_and_again_when_the_token_has_ended() -> None:
    clock = Clock()
    asked: list[int] = []

    async def source() -> str:
        asked.append(1)
        await asyncio.sleep(0)
        return jwt(exp=clock.now + 10)

    tokens = Tokens(source, clock=clock)
    await asyncio.gather(*(tokens.ready() for _ in range(5)))
    await tokens.ready()
    assert len(asked) == 1
    clock.now += 10
    await tokens.ready()
    assert len(asked) == 2


async def test_a_source_that_raises_can_be_asked_again_and_its_error_is_not_shown() -> None:
    answers: Iterator[Exception | str] = iter([ValueError("secret"), "t1"])

    def source() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    tokens = Tokens(source)
    with pytest.raises(ConnectionFailed, match="the token source raised ValueError") as caught:
        await tokens.ready()
    assert "secret" not in str(caught.value)
    await tokens.ready()
    assert tokens.current == "t1"


@pytest.mark.parametrize("wrong", ["", "two words", "line\nbreak", None, 5])
async def test_what_is_no_token_is_a_usage_error(wrong: Any) -> None:  # that is the point
    def source() -> Any:
        return wrong

    tokens = Tokens(source)
    with pytest.raises(UsageError, match="token"):
        await tokens.ready()


async def test_a_plain_token_cannot_be_refreshed() -> None:
    tokens = Tokens("t")
    assert not tokens.can_refresh
    with pytest.raises(UsageError, match="give a function"):
        await tokens.refresh()


async def test_a_refused_one_is_replaced_but_not_again_at_once() -> None:
    clock = Clock()
    given = iter("abc")
    tokens = Tokens(lambda: next(given), monotonic=clock)
    await tokens.ready()
    assert (await tokens.replace_refused(), tokens.current) == (True, "b")
    clock.now += 9
    assert (await tokens.replace_refused(), tokens.current) == (False, "b")
    clock.now += 1
    assert (await tokens.replace_refused(), tokens.current) == (True, "c")
    assert not await Tokens("plain").replace_refused()


async def test_those_that_lost_the_same_token_ask_for_the_next_once() -> None:
    given = iter("abcdef")
    clock = Clock()
    tokens = Tokens(lambda: next(given), monotonic=clock)
    await tokens.ready()
    await asyncio.gather(tokens.renew("a"), tokens.renew("a"))
    await tokens.renew("a")
    assert tokens.current == "b"
    # Refused at the same time, and a little later: all go on with the one that was asked for.
    assert all(await asyncio.gather(*(tokens.replace_refused("b") for _ in range(2))))
    assert (await tokens.replace_refused("b"), tokens.current) == (True, "c")
    assert not await tokens.replace_refused("c"), "that one is too fresh for another to be of use"


async def test_a_connection_that_shows_another_token_than_the_present_one_is_replaced_and_none_is_asked() -> (
    None
):
    asked: list[int] = []

    def source() -> str:
        asked.append(1)
        return jwt(exp=1000)

    times = iter([0.0, 0.0, 940.0])  # when it was due, another connection has asked already
    tokens = Tokens(source, clock=lambda: next(times, 0.0))
    await tokens.ready()
    replaced = asyncio.Event()

    async def replace() -> None:
        replaced.set()

    rotating = asyncio.create_task(rotate(tokens, lambda: "the one before", replace))
    await asyncio.wait_for(replaced.wait(), 10)
    rotating.cancel()
    await asyncio.wait((rotating,))
    assert len(asked) == 1
