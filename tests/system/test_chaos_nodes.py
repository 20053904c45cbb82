"""The judge of runs, completions and nodes in a shared log, and how its senders choose a node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from circuit_breaker_server.engine.agents.records import (
    AgentsTriggered,
    ExecutionEnded,
    ExecutionStarted,
    Triggered,
)
from circuit_breaker_server.engine.llm.records import CompletionFailed, CompletionRequested
from circuit_breaker_server.engine.nodes.records import NodeGone, NodeJoined
from circuit_breaker_server.log.event_log import Record
from tests.system.chaos.__main__ import ON_NODES, experiments_on
from tests.system.chaos.nodes.node_records import Ends
from tests.system.chaos.nodes.node_world import Nodes
from tests.system.chaos.nodes.processor import BusyCores
from tests.system.chaos.result import Result
from tests.system.chaos.world import ServerProcess

ROOT = Path(__file__).parents[2]
AT = "2026-01-01T00:00:00.000Z"
AT_MS = 1_767_225_600_000


def log_of(*bodies: tuple[str, msgspec.Struct]) -> list[Record]:
    return [
        Record(offset=n, subject=subject, id=str(n), time_ms=AT_MS, data=msgspec.json.encode(body))
        for n, (subject, body) in enumerate(bodies, start=1)
    ]


def triggered(run: str, resource: str = "r") -> tuple[str, msgspec.Struct]:
    runs = (Triggered(id=run, agent_id="a", config_id="c", input={}),)
    body = AgentsTriggered(workflow_id="w", resource_id=resource, state_id="s", at=AT, runs=runs)
    return f"trigger.w.{resource}", body


def started(run: str) -> tuple[str, msgspec.Struct]:
    body = ExecutionStarted(execution_id=run, agent_id="a", resource_id="r", at=AT, input={})
    return f"execution.a.{run}", body


def ended(run: str, error: str | None = None) -> tuple[str, msgspec.Struct]:
    status = "COMPLETED" if error is None else "FAILED"
    body = ExecutionEnded(execution_id=run, agent_id="a", resource_id="r", at=AT, status=status, error=error)
    return f"execution.a.{run}", body


def requested(id_: str) -> tuple[str, msgspec.Struct]:
    body = CompletionRequested(request_id=id_, at=AT, model="echo", provider_id="echo", streaming=True)
    return f"completion.{id_}", body


def interrupted(id_: str) -> tuple[str, msgspec.Struct]:
    body = CompletionFailed(
        request_id=id_,
        at=AT,
        provider_id="echo",
        latency_ms=0,
        streaming=True,
        error="interrupted: the server stopped",
        blames_provider=False,
    )
    return f"completion.{id_}", body


@pytest.mark.parametrize(
    ("bodies", "finding"),
    [
        ([triggered("1"), started("1"), ended("1"), requested("c"), interrupted("c")], None),
        ([triggered("1"), ended("1", "interrupted: the server stopped")], None),
        ([triggered("1"), started("1")], "have no end: ['run 1']"),
        ([requested("c")], "have no end: ['completion c']"),
        ([triggered("1"), ended("1"), ended("1")], "have more than one end: ['run 1']"),
        ([triggered("1"), ended("1"), triggered("2"), ended("2")], "were begun more than once: ['r']"),
        ([triggered("1"), started("1"), started("1"), ended("1")], "have started more than once: ['run 1']"),
        ([triggered("1"), ended("1"), started("1")], "have records behind their end: ['run 1']"),
        ([ended("1")], "have an end and were never begun: ['1']"),
    ],
)
def test_what_was_begun_has_one_end(bodies: list[tuple[str, msgspec.Struct]], finding: str | None) -> None:
    result = Result(experiment="")
    Ends.of(log_of(*bodies)).judge(result)
    assert result.failures == ([] if finding is None else [f"1 runs, completions or sessions {finding}"])


def test_interrupted_work_and_nodes_are_counted() -> None:
    joined = NodeJoined(name="a", term=1, at="2026-01-01T00:10:00.000Z", address="", release="1")
    gone = NodeGone(name="a", term=1, at=AT, by="b")
    ends = Ends.of(
        log_of(
            ("node.a", joined),
            triggered("1"),
            ended("1", "interrupted: the server stopped"),
            requested("c"),
            interrupted("c"),
            ("node.a", gone),
        )
    )
    assert ends.interrupted == 2
    assert (ends.joined, ends.gone) == (["a"], ["a"])
    assert ends.clocks == {"a": 600.0}


def test_a_sender_stays_away_from_a_node_that_did_not_answer() -> None:
    members = [SimpleNamespace(url=f"http://{name}/graphql", port=1) for name in "abc"]
    nodes = Nodes(cast("list[ServerProcess]", members))
    assert {nodes.url for _ in range(3)} == {each.url for each in members}
    nodes.failed("http://b/graphql")
    assert {nodes.url for _ in range(6)} == {"http://a/graphql", "http://c/graphql"}
    for each in members:
        nodes.failed(each.url)
    assert nodes.url  # where all have failed, one of them is asked all the same


def test_the_clock_of_a_process_is_set_ahead() -> None:
    code = (
        "import time; before = time.time(); "
        "from tests.system.chaos.shifted_clock import shift; shift(600); "
        "from datetime import UTC, datetime; import datetime as kept; "
        "clocks = [time.time(), time.time_ns() / 1e9, datetime.now(UTC).timestamp()]; "
        "print([round((each - before) / 100) for each in clocks], "
        "isinstance(kept.datetime.now(UTC), datetime))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "[6, 6, 6] True\n"


def test_several_nodes_have_experiments_of_their_own() -> None:
    assert experiments_on("jetstream", nodes=3) == ON_NODES
    assert not ON_NODES.keys() & experiments_on("jetstream").keys()


def test_several_nodes_need_brokers() -> None:
    command = [sys.executable, "-m", "tests.system.chaos", "--nodes", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert "several nodes share a log on brokers: add --log jetstream" in done.stderr


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells it there")
def test_busy_cores_are_those_of_these_processes_and_of_others() -> None:
    busy = BusyCores([1])
    sum(range(1_000_000))
    assert busy.since().keys() == {"own", "others"}
