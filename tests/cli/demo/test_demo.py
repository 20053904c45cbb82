"""The demo as a user runs it: every operation receives events, and none is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import signal
import sys

import msgspec
import pytest

from circuit_breaker_sdk.cli.demo.completions import chunk_value, cost_value, owed_chunks
from circuit_breaker_sdk.cli.demo.ledger import OPERATIONS, Ledger
from circuit_breaker_sdk.events import CostUpdate, LLMResponse, LLMStreamChunk

SEVEN = (
    "resourceUpdates",
    "workflowEvents",
    "agentExecutionStream",
    "llmStream",
    "costUpdates",
    "mcpServerStatusUpdates",
    "mcpSessionEvents",
)


async def run(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "circuit_breaker_sdk.cli",
        "demo",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.timeout(120)
async def test_all_fourteen_operations_receive_events_and_the_verdict_is_clean() -> None:
    process = await run("--seconds", "7", "--json")
    out, err = await asyncio.wait_for(process.communicate(), 100)
    assert process.returncode == 0, err.decode()
    result = msgspec.json.decode(out.splitlines()[-1], type=dict[str, object])
    operations = msgspec.convert(result["operations"], dict[str, dict[str, object]])
    assert list(operations) == list(OPERATIONS)
    assert {name.partition(".")[2] for name in operations} == set(SEVEN)
    assert len(operations) == 14
    for name, operation in operations.items():
        assert operation["events"], name
        assert msgspec.convert(operation["latency_ms"], dict[str, float])["p50"] > 0, name
    assert (result["lost"], result["duplicated"], result["reordered"]) == (0, 0, 0)


@pytest.mark.timeout(60)
async def test_ctrl_c_ends_it_cleanly_and_leaves_no_process_behind() -> None:
    process = await run()
    assert process.stderr is not None
    async with asyncio.timeout(40):
        async for line in process.stderr:
            if line.startswith(b"first event"):
                break
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    # Interrupted early, some operations may not have had their turn: that is told, and nothing was lost.
    assert process.returncode in (0, 1)
    assert b"no event was lost, duplicated or reordered" in out
    assert b"Traceback" not in err


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        (lambda chunks: chunks, (0, 0, 0)),
        (lambda chunks: chunks[:-1], (1, 0, 0)),
        (lambda chunks: [*chunks, chunks[1]], (0, 1, 0)),
        (lambda chunks: [chunks[0], chunks[2], chunks[1], chunks[3]], (0, 0, 1)),
    ],
    ids=["whole", "lost", "doubled", "swapped"],
)
def test_the_ledger_judges_a_completion_against_its_answer(
    changed: object, verdict: tuple[int, int, int]
) -> None:
    answer = msgspec.convert(
        {
            "id": "r1",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "one two"}}],
            "usage": {"promptTokens": 2, "completionTokens": 2, "totalTokens": 4, "estimatedCost": 0.1},
        },
        LLMResponse,
    )
    wire: list[dict[str, object]] = [
        {"eventType": "STREAM_START"},
        {"eventType": "CONTENT_DELTA", "delta": "one "},
        {"eventType": "CONTENT_DELTA", "delta": "two"},
        {
            "eventType": "STREAM_END",
            "usage": {"promptTokens": 2, "completionTokens": 2, "totalTokens": 4, "estimatedCost": 0.1},
        },
    ]
    common: dict[str, object] = {
        "requestId": "r1",
        "isComplete": False,
        "timestamp": "2030-01-01T00:00:00.000Z",
    }
    chunks = [msgspec.convert({**common, **chunk}, LLMStreamChunk, strict=False) for chunk in wire]
    ledger = Ledger()
    handler = ledger.handler("llm.llmStream", "r1", chunk_value, lambda chunk: chunk.content)
    ledger.handler("subscriptions.llmStream", "r1", chunk_value, lambda chunk: chunk.content)
    ticket = ledger.send()
    ledger.accepted(ticket, {("llmStream", "r1"): owed_chunks(answer)})
    assert callable(changed)
    for chunk in changed(chunks):
        handler(chunk)
    found = ledger.judge.verdict()
    # The consolidated client's stream delivered nothing: all four are missing there.
    assert (found.lost - 4, found.duplicated, found.reordered) == verdict


def test_a_cost_is_compared_without_the_noise_of_sums() -> None:
    update = msgspec.convert(
        {
            "eventType": "COST_INCURRED",
            "costDelta": 0.1 + 0.2,
            "totalCost": 0.30000000000000004,
            "timestamp": "2030-01-01T00:00:00.000Z",
        },
        CostUpdate,
    )
    assert cost_value(update) == ("COST_INCURRED", 0.3, 0.3)
