"""Rules across aggregates hold whoever writes: two and three engines on one log, with tails that are behind.

Each schedule is a number: the same number, the same commands in the same order.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, final

import msgspec
import pytest

from circuit_breaker_server.engine.costs.inputs import BudgetInput
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError
from circuit_breaker_server.engine.llm.inputs import ProviderConfig
from circuit_breaker_server.engine.mcp.oauth import Tokens
from circuit_breaker_server.engine.rules.inputs import ConditionInput, RuleInput
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.graphql.idempotent_execution import Done, Once
from circuit_breaker_server.graphql.schema import load_schema
from tests.server.engine.mcp.worlds import server_input
from tests.server.engine.memory_log import MemoryLog
from tests.server.engine.memory_secrets import MemorySecrets
from tests.server.engine.shared.shared_log import View
from tests.server.engine.worlds import activity, review, state_input, workflow_input

SCHEDULES: Final = 2_400
_PARTS: Final = 8
_ROUNDS: Final = 4
_DOCUMENTS: Final = Documents(load_schema())
_WORKFLOW: Final = _DOCUMENTS.get(
    "mutation($i: WorkflowDefinitionInput!) { createWorkflow(input: $i) { id name } }"
)
_MOMENT: Final = datetime.fromtimestamp(0, UTC)  # the time of the records too


@final
class World:
    """A few engines, and commands that get in each other's way."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 (a schedule, not a secret)
        self.log = MemoryLog()
        self.secrets = MemorySecrets()
        count = self.random.choice((2, 3))
        self.views = [View(self.log, self.pause) for _ in range(count)]
        self.engines = [
            Engine(view, now=lambda: _MOMENT, secrets=self.secrets, node=f"n{i}")
            for i, view in enumerate(self.views)
        ]
        self.onces = [Once(engine, timeout_seconds=60.0) for engine in self.engines]
        self.answers: dict[str, set[bytes]] = {}
        self.refusals = 0

    async def pause(self) -> None:
        """Let others go on, and some tail deliver some of what it has not yet."""
        for _ in range(self.random.randrange(3)):
            if self.random.random() < 0.3:
                view = self.random.choice(self.views)
                view.deliver(view.last_offset + self.random.randrange(1, 4))
            await asyncio.sleep(0)

    async def run(self) -> None:
        for engine in self.engines:
            await engine.start()
        await self._made(self.engines[0])
        for view in self.views:
            view.deliver()
        for _ in range(_ROUNDS):
            await asyncio.gather(*(self._try(self._command()) for _ in range(self.random.randrange(2, 7))))
            for view in self.views:
                if self.random.random() < 0.4:
                    view.deliver()
        for view in self.views:
            view.deliver()

    async def _made(self, engine: Engine) -> None:
        condition = ConditionInput(condition_type="FieldExists", field="title")
        for name in "ab":
            await engine.rules.create_rule(RuleInput(name=name, description="", condition=condition))
        for _ in range(2):
            await engine.mcp.servers.create(server_input("http://127.0.0.1:1/mcp", enabled=False))
        self.workflow = str((await engine.workflows.create_workflow(workflow_input())).value["id"])
        self.rule_ids = engine.rules.ids()
        self.server_ids = list(engine.mcp._state.servers)

    async def _try(self, command: Awaitable[object]) -> None:
        try:
            await command
        except EngineError:
            self.refusals += 1

    def _command(self) -> Awaitable[object]:
        engine, rule = self.random.choice(self.engines), self.random.choice(self.rule_ids)
        server = self.random.choice(self.server_ids)
        number = self.random.randrange(1_000)
        naming_it = review(activities=[activity("go", ["draft"], "review", f"rule:{rule}")])
        budget = BudgetInput(user_id="u", limit=number + 1, period="monthly", warning_threshold=0.5)
        commands: list[Callable[[], Awaitable[object]]] = [
            lambda: engine.workflows.create_workflow(workflow_input(naming_it)),
            lambda: engine.workflows.create_workflow(workflow_input(naming_it)),
            lambda: engine.rules.delete_rule(rule),
            lambda: engine.llm.configure_provider(_provider(self.random.choice("xy"), number)),
            lambda: self._under_key(self.random.choice("kl")),
            lambda: engine.mcp.sessions.create(server, "ada", "JWT", Tokens(access_token="t"), None),
            lambda: engine.mcp.delete_server(server),
            lambda: engine.workflows.create_state(state_input(self.workflow, f"s{number % 5}")),
            lambda: engine.costs.set_budget(budget),
        ]
        return self.random.choice(commands)()

    async def _under_key(self, key: str) -> None:
        """Send one mutation on two engines at once, and once more."""
        asked = [self.random.choice(self.onces) for _ in range(2)]
        done = await asyncio.gather(*(self._send(once, key) for once in asked))
        for each in [*done, await self._send(self.random.choice(self.onces), key)]:
            if b'"data":{' in each.answer:
                self.answers.setdefault(key, set()).add(each.answer)

    async def _send(self, once: Once, key: str) -> Done:
        return await once.execute(_WORKFLOW, {"i": review(name=f"under {key}")}, None, key=key)

    def check(self) -> None:
        """Tell which rules are broken, by all engines alike."""
        first, *others = [_state_of(engine) for engine in self.engines]
        assert all(other == first for other in others)
        engine = self.engines[0]
        rules = set(engine.rules.ids())
        for workflow in engine.workflows.workflows():
            assert set(engine.workflows.rule_ids(str(workflow["id"]))) <= rules, "a rule is named and deleted"
        names = [(each.tenant, each.name) for each in engine.llm._state.providers.values()]
        assert len(names) == len(set(names)), "two providers of one name"
        for entry in engine.mcp._state.sessions.values():
            if entry.session.status == "ACTIVE":
                assert entry.session.server_id in engine.mcp._state.servers, "a session of no server"
        made = [str(each["name"]) for each in engine.workflows.workflows()]
        for key in "kl":
            assert made.count(f"under {key}") == (1 if key in self.answers else 0), "a key has two effects"
            assert len(self.answers.get(key, ())) <= 1, "a key has two answers"

    async def aclose(self) -> None:
        for once in self.onces:
            await once.aclose()
        for engine in self.engines:
            await engine.aclose()


def _provider(name: str, number: int) -> ProviderConfig:
    given = {
        "providerType": "openai",
        "name": name,
        "baseUrl": f"http://127.0.0.1:{1024 + number}/v1",
        "apiKeyId": "",
        "models": [],
    }
    return msgspec.convert(given, ProviderConfig)


def _state_of(engine: Engine) -> dict[str, bytes | None]:
    _, changes = engine._folding.state.take_changes()
    return {change.key: change.data for change in changes}


@pytest.mark.parametrize("part", range(_PARTS))
async def test_no_schedule_breaks_a_rule(part: int) -> None:
    refusals = 0
    for seed in range(part * SCHEDULES // _PARTS, (part + 1) * SCHEDULES // _PARTS):
        world = World(seed)
        async with contextlib.aclosing(world):
            await world.run()
            try:
                world.check()
            except AssertionError as error:
                raise AssertionError(f"schedule {seed}: {error}") from error
            refusals += world.refusals
    assert refusals > SCHEDULES // _PARTS, "the schedules are about commands that get in each other's way"
