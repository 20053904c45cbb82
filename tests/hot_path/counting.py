"""Count what an event costs, without a clock: calls, bytecodes, allocations, and what stays behind.

Nothing of the files beside this one is counted, but for the allocations of handing the input over, a few a
read. No count depends on the machine's speed or load; all depend on the version of Python.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path as FilePath
from types import FrameType
from typing import Any, Final, TypeAlias, final

import msgspec

from tests.hot_path import paths
from tests.hot_path.paths import Path, Rig

__all__ = ["COUNTED", "NO_ALLOCATIONS", "Counts", "Places", "count"]

NO_ALLOCATIONS: Final[str | None] = (
    "allocations are not counted: memray is not installed" if find_spec("memray") is None else None
)
"""Why allocations are not counted; ``None`` where they are."""

COUNTED: Final = ("python_calls", "c_calls", "bytecodes", "allocations", "retained_blocks", "cyclic_objects")

_HERE: Final = frozenset({__file__, paths.__file__})
_ROOT: Final = FilePath(__file__).parents[2]


@final
class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What one event costs, on average; rounded to two decimals.

    :ivar python_calls: functions of Python entered, coroutines resumed among them.
    :ivar c_calls: built-in functions and methods called from Python.
    :ivar bytecodes: instructions executed, as the compiler made them.
    :ivar allocations: of the interpreter's allocators and malloc; ``None`` where memray is not installed.
    :ivar retained_blocks: of the interpreter's allocator, that are in use after an event and were not before.
    :ivar cyclic_objects: that only the garbage collector could free.
    """

    python_calls: float
    c_calls: float
    bytecodes: float
    allocations: float | None
    retained_blocks: float
    cyclic_objects: float


Places: TypeAlias = dict[str, Counter[str]]
"""Where the calls and allocations are: by kind, then by place in a file; the sums over all events."""


async def count(path: Path, *, with_places: bool = False) -> tuple[Counts, Places]:
    """Count one path; with ``with_places`` say where allocations are, too."""
    async with path.open() as rig:
        # The collector of cycles would run where the number of objects says so, and empty the free lists.
        gc.disable()
        try:
            counted = await _count(path, rig, with_places=with_places)
        finally:
            gc.enable()
        rig.verify()
        return counted


async def _count(path: Path, rig: Rig, *, with_places: bool) -> tuple[Counts, Places]:
    steps = path.events // path.events_per_step
    await _warm_up(rig, steps)
    places, callers = _calls(rig, steps)
    bytecodes = _bytecodes(rig, steps)
    allocations = None
    if NO_ALLOCATIONS is None:
        await _warm_up(rig, steps)
        allocations = sum(_allocations(rig, steps, with_places=False).values())
    if NO_ALLOCATIONS is None and with_places:
        await _warm_up(rig, steps)
        found = _allocations(rig, steps, with_places=True)
        # For memray's sake the interpreter made a frame object of each call, at the caller's line.
        found.subtract(callers)
        places["allocations"] = +found
    retained, cyclic = await _left_behind(rig, steps)
    counts = Counts(
        python_calls=_each(path, sum(places["python_calls"].values())),
        c_calls=_each(path, sum(places["c_calls"].values())),
        bytecodes=_each(path, bytecodes),
        allocations=None if allocations is None else _each(path, allocations),
        retained_blocks=_each(path, retained),
        cyclic_objects=_each(path, cyclic),
    )
    return counts, places


def _each(path: Path, number: int) -> float:
    # Adding 0.0 makes of -0.0 what it should be.
    return round(number / path.events, 2) + 0.0


async def _warm_up(rig: Rig, steps: int) -> None:
    """Fill what is filled once: caches, rings, the free lists that a collection has emptied."""
    gc.collect()
    for _ in range(steps):
        rig.step(rig.prepare())
        await asyncio.sleep(0)


def _run(rig: Rig, reads: Sequence[Any]) -> None:
    step = rig.step
    for read in reads:
        step(read)


def _calls(rig: Rig, steps: int) -> tuple[Places, Counter[str]]:
    """Return where calls were, and from which places functions of Python were called."""
    inputs = [rig.prepare() for _ in range(steps)]
    python_calls: Counter[str] = Counter()
    c_calls: Counter[str] = Counter()
    callers: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if code.co_filename in _HERE:
            return
        if event == "call":
            python_calls[f"{_place(code.co_filename, code.co_firstlineno)} {code.co_qualname}"] += 1
            if frame.f_back is not None:
                callers[_place(frame.f_back.f_code.co_filename, frame.f_back.f_lineno)] += 1
        elif event == "c_call":
            name = getattr(argument, "__qualname__", repr(argument))
            c_calls[f"{_place(code.co_filename, frame.f_lineno)} {name}"] += 1

    sys.setprofile(profile)
    try:
        _run(rig, inputs)
    finally:
        sys.setprofile(None)
    return {"python_calls": python_calls, "c_calls": c_calls}, callers


def _place(name: str, line: int) -> str:
    file = FilePath(name)
    return f"{file.relative_to(_ROOT) if file.is_relative_to(_ROOT) else file.name}:{line}"


def _bytecodes(rig: Rig, steps: int) -> int:
    inputs = [rig.prepare() for _ in range(steps)]
    executed = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Callable[..., Any] | None:
        nonlocal executed
        if frame.f_code.co_filename in _HERE:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        executed += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        _run(rig, inputs)
    finally:
        sys.settrace(before)
    return executed


def _allocations(rig: Rig, steps: int, *, with_places: bool) -> Counter[str]:
    import memray  # there is no wheel for every platform

    inputs = [rig.prepare() for _ in range(steps)]
    found: list[Counter[str]] = []
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-hot-path-") as directory:
        # First without any input: what the counting itself allocates.
        for number, reads in enumerate(([], inputs)):
            file = FilePath(directory) / str(number)
            with memray.Tracker(file, trace_python_allocators=True):
                if not with_places:
                    # memray follows the stack by a profile function, for which the interpreter makes a
                    # frame object at each call: an allocation that is not ours.
                    sys.setprofile(None)
                _run(rig, reads)
            found.append(_read(file, with_places=with_places))
    own, all_ = found
    all_.subtract(own)
    return all_


def _read(file: FilePath, *, with_places: bool) -> Counter[str]:
    import memray  # as above

    frees = {memray.AllocatorType.FREE, memray.AllocatorType.PYMALLOC_FREE, memray.AllocatorType.MUNMAP}
    found: Counter[str] = Counter()
    with memray.FileReader(file) as reader:
        for record in reader.get_allocation_records():
            if record.allocator not in frees:
                stack = record.stack_trace(max_stacks=1) if with_places else ()
                found[_place(*stack[0][1:]) if stack else ""] += record.n_allocations
    return found


async def _left_behind(rig: Rig, steps: int) -> tuple[int, int]:
    """Return how many blocks are in use that were not before, and how many objects hang in cycles."""
    await _warm_up(rig, steps)
    inputs = [rig.prepare() for _ in range(3 * steps)]
    own = 0
    for _ in range(2):
        # What the counting itself keeps; the second time nothing is made for the first time.
        before = sys.getallocatedblocks()
        await _turn_by_turn(rig, [])
        own = sys.getallocatedblocks() - before
    # Those to warm up were dropped after use: first take the place of what is left of them.
    await _turn_by_turn(rig, inputs[:steps])
    # Twice, and the smaller counts: what is made once in the life of a process is not left by each event.
    found = []
    for begin in (steps, 2 * steps):
        before = sys.getallocatedblocks()
        await _turn_by_turn(rig, inputs[begin : begin + steps])
        found.append(sys.getallocatedblocks() - before - own)
    retained = min(found)
    gc.collect()
    _run(rig, [rig.prepare() for _ in range(steps)])
    return retained, gc.collect()


async def _turn_by_turn(rig: Rig, reads: Sequence[Any]) -> None:
    for read in reads:
        rig.step(read)
        await asyncio.sleep(0)
