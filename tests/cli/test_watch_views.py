"""Views of ``watch``: a member of each event, texts as they are, a rate; markers; a place that is kept."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.cli.output import JsonLines
from circuit_breaker_sdk.testing import FaultProxy
from circuit_breaker_server import Server, ServerSettings
from tests.cli.process import Command, running
from tests.integration.strawberry_server import strawberry_server
from tests.integration.workflows import create_review_workflow

TICKS = "subscription($upto: Int!) { ticks(upto: $upto) { number label } }"
EVENT = {"id": "r-1", "history": [{"activity": "submit"}], "data": {"a.b": 1, "n": None}, "ü": "Ü"}


@pytest.mark.parametrize(
    ("field", "raw", "line"),
    [
        ("id", False, '"r-1"'),
        ("id", True, "r-1"),
        ("history.0.activity", True, "submit"),
        ("history.1.activity", False, "null"),
        ("history.first", False, "null"),
        ("history", True, '[{"activity":"submit"}]'),
        ("data.n", True, "null"),
        ("id.x", False, "null"),
        ("ü", True, "Ü"),
    ],
)
def test_a_member_is_written_in_place_of_the_event(
    capsysbinary: pytest.CaptureFixture[bytes], field: str, raw: bool, line: str
) -> None:
    JsonLines(field=field, raw=raw).show(EVENT)
    assert capsysbinary.readouterr().out == f"{line}\n".encode()


def ended(*arguments: str) -> tuple[int, list[str], list[str]]:
    with running(*arguments) as command:
        return command.end(), command.out, command.err


async def test_a_member_of_any_servers_events() -> None:
    async with strawberry_server() as url:
        given = ("watch", TICKS, "-v", "upto=9", "--url", url, "--field", "number")
        status, out, _ = await asyncio.to_thread(ended, *given)
    assert (status, out) == (0, [str(n) for n in range(9)])


async def test_a_rate_in_place_of_the_events() -> None:
    async with strawberry_server() as url:
        given = ("watch", TICKS, "-v", "upto=1000000", "--url", url, "--rate")

        def two_lines() -> str:
            with running(*given) as command:
                command.wait_for(r"^[\d,]+ events/s, [\d,]+ events$")
                return command.wait_for(r"^([\d,]+ events/s, [\d,]+ events)$")

        line = await asyncio.to_thread(two_lines)
    found = re.fullmatch(r"([\d,]+) events/s, ([\d,]+) events", line)
    assert found is not None
    assert int(found[2].replace(",", "")) >= int(found[1].replace(",", "")) > 0
    status, out, err = ended("watch", TICKS, "--rate", "--raw")
    assert (status, out) == (2, [])
    assert "--rate shows no events" in " ".join(err)


async def test_a_server_without_cursors_may_leave_a_gap_which_is_told() -> None:
    async with strawberry_server() as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        async with FaultProxy("127.0.0.1", port) as proxy:
            through = url.replace(str(port), str(proxy.port))

            def watch(cut: asyncio.Event, loop: asyncio.AbstractEventLoop) -> list[str]:
                with running("watch", TICKS, "-v", "upto=1000000", "--url", through) as command:
                    command.wait_for("^live: ")
                    loop.call_soon_threadsafe(cut.set)
                    command.wait_for("^gap: events may be missing")
                    return command.err

            cut = asyncio.Event()
            watching = asyncio.create_task(asyncio.to_thread(watch, cut, asyncio.get_running_loop()))
            await cut.wait()
            proxy.cut()
            err = await watching
    markers = [line.partition(":")[0] for line in err]
    assert markers[:5] == ["connected", "live", "reconnecting", "live", "gap"]


async def test_a_place_is_kept_and_gone_on_from(tmp_path: Path) -> None:
    place = tmp_path / "place.json"
    async with (
        Server(ServerSettings(port=0, data_dir=tmp_path / "data")) as server,
        Client(server.url) as client,
    ):
        workflow = await create_review_workflow(client)

        async def create(*numbers: int) -> None:
            for n in numbers:
                await client.workflows.create_resource(workflow_id=workflow.id, data={"n": n})

        def command(count: int) -> Command:
            return Command(
                "watch", "resource-updates", f"--url={server.url}", f"--resume={place}",
                f"--count={count}", "--field=data.n",
            )  # fmt: skip

        first = command(2)
        try:
            await asyncio.to_thread(first.wait_for, "^live: ")
            await create(1, 2)
            assert await asyncio.to_thread(first.end) == 0
            assert first.out == ["1", "2"]
        finally:
            first.close()
        await create(3, 4)
        second = command(2)
        try:
            assert await asyncio.to_thread(second.end) == 0
            assert second.out == ["3", "4"]
        finally:
            second.close()
