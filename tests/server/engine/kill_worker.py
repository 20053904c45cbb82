"""A process to be killed: executes activities as fast as it can and prints each answer it got.

Run with the data directory and the id of the run as arguments. Each line is JSON.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
import uvloop

from circuit_breaker_server.engine.errors import EngineError
from circuit_breaker_server.engine.workflows.inputs import CreateResource, ExecuteActivity
from tests.server.engine.worlds import create_workflow, engine_in


def say(**facts: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(facts) + b"\n")
    sys.stdout.buffer.flush()


async def main(directory: Path) -> None:
    async with engine_in(directory, snapshot_every=40) as (engine, _), asyncio.TaskGroup() as tasks:
        workflow = await create_workflow(engine)

        async def run(worker: int) -> None:
            given = CreateResource(workflow_id=workflow, data={"worker": worker})
            made = await engine.create_resource(given)
            resource = str(made.value["id"])
            say(resource=resource, offset=made.record.offset, n=0)
            n = 0
            while True:
                n += 1
                activity = ExecuteActivity(resource_id=resource, activity_id="edit", data={"n": n})
                done = await engine.execute_activity(activity)
                say(resource=resource, offset=done.record.offset, n=n)
                try:
                    refused = ExecuteActivity(
                        resource_id=resource, activity_id="approve", data={"refused": n}
                    )
                    await engine.execute_activity(refused)
                except EngineError:
                    say(resource=resource, refused=n)

        for worker in range(8):
            tasks.create_task(run(worker))


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
