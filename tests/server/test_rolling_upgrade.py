"""Three real nodes become the next release, one after the other, under load; then the format is raised."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import secrets
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import final

import aiohttp
import msgspec

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.protocol.positions import HEADER
from circuit_breaker_server.engine.record_versions import VERSION
from tests.cli.process import PROGRAM, READY, Command
from tests.conformance.nats_server import NatsServer
from tests.ports import free_ports
from tests.server.log.jetstream.log_stage import everything, opened
from tests.server.operations import CREATE_RESOURCE, CREATE_WORKFLOW, WORKFLOW
from tests.waiting import until

NEXT_PROGRAM = "tests.server.next_release"
NEXT = VERSION + 1
NAMES = ("n1", "n2", "n3")
CREATE_STATE = "mutation($input: StateDefinitionInput!) { createState(input: $input) { id } }"
STATES = "query($id: String!) { workflow(id: $id) { states { id } } }"


@final
class Nodes:
    """The processes: each name has a port and a data directory, whichever program runs under it."""

    def __init__(self, directory: Path, broker: NatsServer) -> None:
        self._directory = directory
        self._broker = broker
        self._ports = dict(zip((*NAMES, "late"), free_ports(len(NAMES) + 1), strict=True))
        self._key = directory / "cluster.key"
        self._key.touch(mode=0o600)
        self._key.write_text(secrets.token_hex(32))
        self.running: dict[str, Command] = {}

    @property
    def broker_url(self) -> str:
        return self._broker.url

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{self._ports[name]}/graphql" for name in NAMES]

    def command(self, name: str, program: str) -> Command:
        place = ("--port", str(self._ports[name]), "--data", str(self._directory / name))
        log = ("--log", self._broker.url, "--cluster-key-file", str(self._key))
        return Command("serve", "--node", name, *place, *log, program=program)

    async def start(self, name: str, program: str) -> None:
        self.running[name] = self.command(name, program)
        await asyncio.to_thread(self.running[name].wait_for, READY.pattern)

    async def replace(self, name: str, program: str) -> None:
        old = self.running.pop(name)
        old.signal(signal.SIGTERM)
        assert await asyncio.to_thread(old.end) == 0, old.err
        old.close()
        await self.start(name, program)

    def close(self) -> None:
        for command in self.running.values():
            command.close()


@contextlib.contextmanager
def running_nodes(directory: Path) -> Iterator[Nodes]:
    """Run a broker, and end all processes with the block: in the test, which leaves no thread behind."""
    with NatsServer(directory / "nats").running() as broker:
        nodes = Nodes(directory, broker)
        try:
            yield nodes
        finally:
            nodes.close()


@final
class Caller:
    """Sends mutations to the nodes in turn; one that fails goes to the next node, under the same key."""

    def __init__(self, http: aiohttp.ClientSession, urls: list[str]) -> None:
        self._http = http
        self._urls = urls
        self._turn = 0
        self._seen = ""
        self.retries = 0

    async def mutate(self, query: str, given: dict[str, object]) -> dict[str, object]:
        key = uuid.uuid4().hex
        async with asyncio.timeout(30):
            while True:
                self._turn += 1
                url = self._urls[self._turn % len(self._urls)]
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    answer = await self.ask(url, query, {"input": given}, key=key)
                    if answer is not None:
                        return answer
                self.retries += 1
                await asyncio.sleep(0.05)

    async def ask(
        self, url: str, query: str, variables: dict[str, object], *, key: str | None = None
    ) -> dict[str, object] | None:
        """Return the answer; ``None`` where the node cannot answer now."""
        headers = {HEADER: self._seen} if self._seen else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        body = {"query": query, "variables": variables}
        async with self._http.post(url, json=body, headers=headers) as answer:
            told = msgspec.json.decode(await answer.read(), type=dict[str, object])
            if answer.status == 503 or '"UNAVAILABLE"' in json.dumps(told):
                return None
            self._seen = answer.headers.get(HEADER, self._seen)
            return told


def made(answer: dict[str, object]) -> str:
    """Return the id of what a mutation has made."""
    assert "errors" not in answer, answer
    ((value),) = msgspec.convert(answer["data"], dict[str, dict[str, str]]).values()
    return value["id"]


@contextlib.asynccontextmanager
async def load(caller: Caller, workflow: str) -> AsyncIterator[list[str]]:
    """Create resources one after the other until the block ends; yield the ids that were answered."""
    created: list[str] = []

    async def create() -> None:
        while True:
            created.append(made(await caller.mutate(CREATE_RESOURCE, {"workflowId": workflow})))

    task = asyncio.create_task(create())
    try:
        yield created
    finally:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.result()


async def run(*arguments: str) -> tuple[int, list[str], list[str]]:
    command = Command("nodes", *arguments)
    try:
        status = await asyncio.to_thread(command.end)
        return status, command.out, command.err
    finally:
        command.close()


async def reads(url: str) -> dict[str, int]:
    _, out, _ = await run(url, "--json")
    nodes = json.loads("".join(out))
    return {each["name"]: each["reads"] for each in nodes if each["status"] == "live"}


async def test_nodes_are_replaced_one_by_one_under_load_and_then_the_format_is_raised(tmp_path: Path) -> None:
    with running_nodes(tmp_path) as nodes:
        await upgrade(nodes)
        await check_log(nodes)
        await check_old_program(nodes)


async def upgrade(nodes: Nodes) -> None:
    """Replace each node, then raise the format; judge what the subscriber got by what was answered."""
    for name in NAMES:
        await nodes.start(name, PROGRAM)
    async with aiohttp.ClientSession() as http, Client(nodes.urls) as client:
        caller = Caller(http, nodes.urls)
        workflow = made(await caller.mutate(CREATE_WORKFLOW, dict(WORKFLOW)))
        seen: list[str] = []

        async def follow() -> None:
            async for event in client.workflows.subscribe_workflow_events(workflow):
                seen.extend(each for each in (event.resource_id,) if each is not None)

        following = asyncio.create_task(follow())
        try:
            async with load(caller, workflow) as created:
                await until(lambda: seen)
                for number, name in enumerate(NAMES):
                    before = len(created)
                    await nodes.replace(name, NEXT_PROGRAM)
                    await until(functools.partial(has_grown, created, before + 20))
                    assert await reads(nodes.urls[number]) == {
                        each: NEXT if each in NAMES[: number + 1] else VERSION for each in NAMES
                    }
                    if number < 2:
                        status, _, err = await run(nodes.urls[number], "--raise-format")
                        assert status == 5
                        assert f"n3 (reads {VERSION})" in err[0]
            answer = await caller.ask(nodes.urls[0], CREATE_STATE, {"input": state(workflow)})
            assert "raise-format" in str(answer)
            status, out, err = await run(nodes.urls[0], "--raise-format")
            assert (status, err) == (0, [f"raised: the log's format is {NEXT}"])
            assert out[-1] == f"format: {NEXT}"
            assert made(await caller.mutate(CREATE_STATE, state(workflow))) == "archived"
            for url in nodes.urls:
                answer = await caller.ask(url, STATES, {"id": workflow})
                assert '"archived"' in json.dumps(answer)
            async with load(caller, workflow) as more:
                await until(lambda: len(more) > 20)
            created += more
            await until(lambda: set(created) <= set(seen))
        finally:
            following.cancel()
            await asyncio.wait((following,))
    first = created.index(seen[0])
    # The one that was under way when the load ended may be there as well.
    extra = Counter(seen) - Counter(created[first:])
    assert len(extra) <= 2
    assert max(Counter(seen).values()) == 1
    assert [each for each in seen if each in set(created)] == created[first:]
    assert caller.retries > 0, "the load has met nodes that were down"


def has_grown(created: list[str], count: int) -> bool:
    return len(created) > count


def state(workflow: str) -> dict[str, object]:
    return {"id": "archived", "name": "Archived", "workflowId": workflow, "stateType": "NORMAL"}


async def check_log(nodes: Nodes) -> None:
    """All records before the format was raised are of the old version, and all after it of the new one."""
    async with opened(nodes.broker_url) as log:
        records = await everything(log)
    (raised,) = [each.offset for each in records if each.subject == "format.log"]
    versions = {True: set[object](), False: set[object]()}
    for record in records:
        body = msgspec.json.decode(record.data, type=dict[str, object])
        versions[record.offset > raised].add(body["v"])
    assert versions == {False: {VERSION}, True: {NEXT}}


async def check_old_program(nodes: Nodes) -> None:
    late = nodes.command("late", PROGRAM)
    try:
        assert await asyncio.to_thread(late.end) == 8
        line = late.err[-1]  # above it, a warning about the broker
        assert f"written in format {NEXT}, and this program reads up to {VERSION}: start a newer" in line
        assert late.out == []
    finally:
        late.close()
    for name, command in nodes.running.items():
        assert command.process.poll() is None, name


async def test_an_old_node_that_was_paused_while_the_format_was_raised_stops_alone(tmp_path: Path) -> None:
    with running_nodes(tmp_path) as nodes:
        await nodes.start("n1", PROGRAM)
        await nodes.start("n2", NEXT_PROGRAM)
        url = nodes.urls[1]
        paused = nodes.running["n1"]
        paused.signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(60):
                while "n1" in await reads(url):  # until it is declared gone
                    continue
            status, _, err = await run(url, "--raise-format")
        finally:
            paused.signal(signal.SIGCONT)
        assert (status, err) == (0, [f"raised: the log's format is {NEXT}"])
        assert await asyncio.to_thread(paused.end) == 8
        assert "stopped: " in paused.err[-1]
        assert f"written in format {NEXT}, and this program reads up to {VERSION}" in paused.err[-1]
        assert await reads(url) == {"n2": NEXT}
