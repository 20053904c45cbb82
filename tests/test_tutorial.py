"""The tutorial's blocks run as they stand, one after the other, against a real server."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

from circuit_breaker_server import Server, ServerSettings

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
URL = "http://localhost:4000/graphql"


async def test_the_tutorial_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert len(blocks) == 9
    names: dict[str, object] = {}
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server:
        assert URL in blocks[0]
        for number, block in enumerate(blocks):
            code = compile(
                block.replace(URL, server.url),
                f"docs/tutorial.md, block {number + 1}",
                "exec",
                flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            )
            # The tutorial is ours; a block with `await` in it is a coroutine.
            waiting = eval(code, names)  # noqa: S307 (as said above)
            if inspect.isawaitable(waiting):
                await waiting
