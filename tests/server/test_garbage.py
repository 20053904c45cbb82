"""A request leaves nothing to the garbage collection, which comes late in a large server and stops it."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from circuit_breaker_server import Server, ServerSettings
from tests.waiting import until

_REQUESTS: Final = 5
_OBJECTS_PER_REQUEST: Final = 10
"""One or two circles of libraries; a document of any length has hundreds."""

_FIELDS: Final = "id name " * 400
_MISSPELT: Final = " ".join(f"a{n}: workflowz(frist: {n}) {{ idd }}" for n in range(60))
_FRAGMENTS: Final = " ".join(f"fragment f{n} on WorkflowGQL {{ id ...f{n + 1} }}" for n in range(15))
_UNUSED: Final = " ".join(f"$v{n}: [[Int]]" for n in range(100))
_POLLED: Final = "subscription sNUMBER { resourceUpdates { id } }"

REQUESTS: Final[dict[str, tuple[str, Any]]] = {
    "a short document": ("", {"query": "query qNUMBER { workflows { id } }"}),
    "a long one": ("", {"query": f"query qNUMBER {{ workflows {{ {_FIELDS} }} }}"}),
    "fragments": (
        "",
        {"query": "query qNUMBER { workflows { ...f0 } } fragment f15 on WorkflowGQL { id } " + _FRAGMENTS},
    ),
    "introspection": ("", {"query": "query qNUMBER { __schema { types { name fields { name } } } }"}),
    "a syntax error": ("", {"query": f"query qNUMBER {{ workflows {{ {_FIELDS}"}),
    "a short syntax error": ("", {"query": "query qNUMBER { workflows {"}),
    "fields that there are not": ("", {"query": f"query qNUMBER {{ {_MISSPELT} }}"}),
    "variables that are not used": ("", {"query": f"query qNUMBER({_UNUSED}) {{ health }}"}),
    "too many levels": ("", {"query": "query qNUMBER " + "{ a" * 300 + "}" * 300}),
    "a variable that does not fit": (
        "",
        {"query": "query qNUMBER($n: Int) { workflows(first: $n) { id } }", "variables": {"n": "x" * 1000}},
    ),
    "a mutation that is refused": (
        "",
        {
            "query": "mutation qNUMBER { executeActivity(input: {resourceId: 1, activityId: 1}) { id } }",
        },
    ),
    "a poll": ("/poll", {"operations": [{"query": _POLLED}] * 20, "waitMs": 0}),
    "a poll that is refused": (
        "/poll",
        {
            "operations": [
                {"query": "subscription sNUMBER { nothing }"},
                {"query": "query qNUMBER { health }"},
                {"query": _POLLED, "extensions": {"resume": {"after": "nowhere"}}},
            ],
            "waitMs": 0,
        },
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_leaves_no_garbage_in_circles(
    tmp_path: Path, default_log_level: None, name: str
) -> None:
    async with Server(ServerSettings(data_dir=tmp_path, port=0, log_level="critical")) as server:
        kinds = await garbage_of(server.port, *REQUESTS[name])
    assert kinds.total() / _REQUESTS <= _OBJECTS_PER_REQUEST, kinds.most_common(10)


async def garbage_of(port: int, path: str, body: Any) -> Counter[str]:
    """Send a request some times; count by kind the objects that only the garbage collection finds then."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(number: int) -> None:
        written = json.dumps(body).replace("NUMBER", str(number))
        connection.request("POST", "/graphql" + path, written, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        assert b'"INTERNAL"' not in answer.read()

    tasks = len(asyncio.all_tasks())
    await asyncio.to_thread(ask, 0)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for number in range(_REQUESTS):
            await asyncio.to_thread(ask, number + 1)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)  # what was cancelled has ended
        gc.collect()
        return Counter(type(each).__qualname__ for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        connection.close()
