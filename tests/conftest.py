"""How every test runs: coroutine tests on a fresh loop, and nothing may survive a test."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import warnings
from collections.abc import Awaitable, Callable

import pytest
import uvloop

# Clients of the tests reach their servers directly, whatever the machine says; so do processes they start.
for _name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[_name]


async def _run_and_check_tasks(test: Callable[..., Awaitable[None]], arguments: dict[str, object]) -> None:
    await test(**arguments)
    # Callbacks of what the test has just closed (transports, cancelled tasks) run in the next turns.
    for _ in range(5):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks outlive the test: {left}"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine tests to their end on a loop of their own; fail if a task or thread survives."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    threads_before = set(threading.enumerate())
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        runner.run(_run_and_check_tasks(pyfuncitem.obj, arguments))
    finally:
        # As errors, these would stop uvloop half-way: it would wait for ever for what it has not closed.
        with warnings.catch_warnings(record=True) as unclosed:
            warnings.simplefilter("always", ResourceWarning)
            runner.close()
    assert not unclosed, f"left open by the test: {[str(warning.message) for warning in unclosed]}"
    left = [t for t in threading.enumerate() if t not in threads_before and t.is_alive() and not t.daemon]
    assert not left, f"threads outlive the test: {left}"
    return True
