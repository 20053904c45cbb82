"""The judge of mutations under keys, and what an event log on JetStream leaves out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web

from tests.system.chaos.__main__ import LEFT_OUT, ON_BROKERS, experiments_on
from tests.system.chaos.crash_points import POINTS
from tests.system.chaos.keyed_publishing import KeyedPublisher, judge_keys
from tests.system.chaos.keyed_sending import KeyedSender
from tests.system.chaos.publishing import BATCH
from tests.system.chaos.result import Result
from tests.system.chaos.world import World

ROOT = Path(__file__).parents[2]


def world_of(url: str = "") -> World:
    class Up:
        async def wait(self) -> bool:
            return True

    server = SimpleNamespace(url=url, up=Up(), failed=lambda _: None)
    return cast("World", SimpleNamespace(workflow="w", server=server))


def publisher_of(answers: dict[int, str]) -> KeyedPublisher:
    world = world_of()
    publisher = KeyedPublisher(world, KeyedSender(world))
    publisher.ids |= answers
    publisher.acknowledged |= answers.keys()
    return publisher


@pytest.mark.parametrize(
    ("events", "finding"),
    [
        ([("a", 0), ("b", 1)], None),
        ([("a", 0), ("b", 1), ("c", 2)], None),  # of a key without an answer: it may have happened
        ([("a", 0), ("b", 1), ("z", 0)], "1 keys have several events: [0]"),
        ([("a", 0)], "1 answered keys have no event: [1]"),
        ([("a", 0), ("z", 1)], "1 keys have an event that is not their answer's: [1]"),
    ],
)
def test_each_key_has_one_event_and_that_is_its_answers(
    events: list[tuple[str, int]], finding: str | None
) -> None:
    result = Result(experiment="")
    judge_keys(result, publisher_of({0: "a", 1: "b"}), events)
    assert (result.failures[0] if result.failures else None) == finding


def test_a_wrong_answer_is_a_failure() -> None:
    result, publisher = Result(experiment=""), publisher_of({0: "a"})
    publisher.sender.wrong.append("key 0: CONFLICT: no")
    judge_keys(result, publisher, [("a", 0)])
    assert result.failures == ["1 wrong answers: ['key 0: CONFLICT: no']"]


class Moody:
    """A server that refuses, breaks the connection, and answers in the end; once more with another answer."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers["Idempotency-Key"])
        times = self.keys.count(self.keys[-1])
        if times == 1:
            extensions = {"code": "UNAVAILABLE", "mayHaveHappened": True}
            return web.json_response({"errors": [{"message": "away", "extensions": extensions}]})
        if times == 2:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"data": {"createResource": {"id": f"{self.keys[-1]}/{times // 4}"}}})


async def test_a_mutation_is_sent_under_its_key_until_it_is_answered() -> None:
    moody = Moody()
    app = web.Application()
    app.router.add_post("/", moody.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        world = world_of(f"http://127.0.0.1:{runner.addresses[0][1]}")
        async with KeyedSender(world) as sender:
            sender.delay_seconds = 0.0
            publisher = KeyedPublisher(world, sender, lanes=2)
            await publisher.publish(BATCH)
            assert publisher.acknowledged == set(range(BATCH))
            assert publisher.take_longest_wait() == publisher.longest_wait_seconds > 0
            assert publisher.take_longest_wait() == 0
            assert publisher.ids == {n: f"resource-{n}/0" for n in range(BATCH)}
            assert sender.open_refusals == BATCH
            assert sender.sent_again == 2 * BATCH
            assert not sender.wrong
            await publisher.send_again([3])
            assert sender.sent_again == 2 * BATCH + 1
            (wrong,) = sender.wrong
            assert wrong.startswith("resource-3 was answered with")
    finally:
        await runner.cleanup()


def test_on_jetstream_only_what_means_nothing_there_is_left_out() -> None:
    on_jetstream = experiments_on("jetstream")
    assert on_jetstream.keys() == experiments_on("sqlite").keys() | ON_BROKERS.keys()
    assert not LEFT_OUT.keys() - on_jetstream.keys()
    assert not LEFT_OUT.keys() & ON_BROKERS.keys()


def test_what_is_left_out_is_named() -> None:
    done = run("--log", "jetstream", "--only", "disk", "--json")
    assert done.returncode == 0
    line = msgspec.json.decode(done.stdout, type=dict[str, Any])
    assert (line["experiment"], line["left_out"]) == ("disk", "about the SQLite file")


def test_an_experiment_about_brokers_needs_them() -> None:
    done = run("--only", "broker leader killed")
    assert done.returncode == 2
    assert "with --log sqlite no experiment is called 'broker leader killed'" in done.stderr


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.system.chaos", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)


def test_every_crash_point_is_in_the_code() -> None:
    for points in POINTS.values():
        for kind, name, when in points.values():
            assert callable(getattr(kind, name))
            assert when in ("before", "after")
