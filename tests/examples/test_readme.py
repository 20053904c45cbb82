"""The README's programs run as they are pasted, its links lead somewhere, and it stays short."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from circuit_breaker_server import Server, ServerSettings
from tests.integration.strawberry_server import strawberry_server
from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ANY_SERVER, OUR_SERVER = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def at(url: str, program: str) -> str:
    """Return a program with another server's URL in it."""
    assert program.count("ws://localhost:4000/graphql") == 1
    return program.replace("ws://localhost:4000/graphql", url)


async def run(program: str) -> str:
    """Run a program to its good end; return what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        program,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode()


async def test_the_first_program_prints_the_events_of_any_server() -> None:
    async with strawberry_server() as url:
        document = "subscription { ticks(upto: 2) { number label } }"
        program = at(url, ANY_SERVER).replace("subscription { resourceUpdates { id state } }", document)
        printed = await run(program)
    assert printed.splitlines() == [
        "{'number': 0, 'label': 'tick 0'}",
        "{'number': 1, 'label': 'tick 1'}",
    ]


async def test_the_second_program_prints_the_event_of_its_own_mutation(tmp_path: Path) -> None:
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server:
        printed = await run(at(server.url, OUR_SERVER))
    assert printed.startswith("Resource(")
    assert "'title': 'Hello'" in printed


def test_it_has_at_most_120_lines_and_every_file_that_it_links_is_there() -> None:
    assert len(README.splitlines()) <= 120
    links = re.findall(r"\]\(([^)#]+)", README)
    files = [link for link in links if not link.startswith("https://")]
    assert files
    assert [link for link in files if not (ROOT / link).exists()] == []
