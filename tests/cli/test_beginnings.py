"""``watch`` begins in the past: at the beginning, at a time, or a number of events before now."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from circuit_breaker_sdk import Client, UsageError
from circuit_breaker_sdk.cli.app import app
from circuit_breaker_sdk.cli.beginnings import Beginning
from circuit_breaker_server import Server, ServerSettings
from tests.cli.process import running
from tests.integration.workflows import create_review_workflow


async def test_watch_prints_the_past_first(tmp_path: Path) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server, Client(server.url) as client:
        workflow = (await create_review_workflow(client)).id
        for n in range(5):
            await client.workflows.create_resource(workflow_id=workflow, data={"n": n})
        for options, wanted in (
            (["--from-beginning", "--count", "5"], [0, 1, 2, 3, 4]),
            (["--last", "2", "--count", "2"], [3, 4]),
            (["--since", "10m", "--count", "5"], [0, 1, 2, 3, 4]),
        ):

            def watch(options: list[str]) -> tuple[int, list[str]]:
                with running("watch", "resource-updates", "--url", server.url, *options) as command:
                    return command.end(), command.out

            status, out = await asyncio.to_thread(watch, options)
            assert status == 0
            assert [json.loads(line)["data"]["n"] for line in out] == wanted


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--since", "yesterday"], "--since takes a time with a zone"),
        (["--since", "2026-01-31T12:00:00"], "--since takes a time with a zone"),
        (["--since", "999999999d"], "--since takes a time with a zone"),
        (["--last", "0"], "--last"),
        (["--last", "5", "--from-beginning"], "give one of them"),
    ],
)
def test_what_is_no_beginning_is_a_usage_error(options: list[str], text: str) -> None:
    done = CliRunner().invoke(app, ["watch", "resource-updates", *options])
    assert done.exit_code == 2
    assert text in done.output.replace("\n", " ")


def test_how_long_ago_has_units() -> None:
    seen: list[datetime] = []

    class Builder:
        def since(self, moment: datetime) -> Builder:
            seen.append(moment)
            return self

    for text in ("90s", "10m", "2h", "7d", "2026-01-31T12:00:00+01:00"):
        _ = Beginning.of(since=text).applied(Builder())  # type: ignore[arg-type]  # it is asked for nothing else
    *ago, exact = seen
    now = datetime.now(UTC)
    for moment, wanted in zip(
        ago,
        (timedelta(seconds=90), timedelta(minutes=10), timedelta(hours=2), timedelta(days=7)),
        strict=True,
    ):
        assert abs(now - moment - wanted) < timedelta(seconds=10)
    assert exact == datetime(2026, 1, 31, 11, tzinfo=UTC)
    with pytest.raises(UsageError):
        Beginning.of(since="5")
