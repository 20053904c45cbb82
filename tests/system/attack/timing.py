"""Guessing from the time of an answer whether an id exists that the caller may not see."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from typing import Final

import aiohttp

from tests.system.attack.attacks import SEED
from tests.system.attack.attempt import Breach, Scale
from tests.system.attack.naming import NOBODYS, with_ids, written
from tests.system.attack.owned import PROBER, one_of_each
from tests.system.attack.world import World, token

__all__ = ["AUC_BOUND", "timing_of_ids", "told_apart"]

AUC_BOUND: Final = 0.6
"""How well times may tell existing from missing; 0.5 is guessing, 1 is knowing."""

_REPEATS: Final = 3


def told_apart(some: Sequence[float], others: Sequence[float]) -> float:
    """Return how well a threshold tells two groups of times apart: the area under the ROC curve, 0.5 to 1.

    It is the share of pairs in which the one is larger (Mann and Whitney), whichever way round.
    """
    ranked = sorted([(value, True) for value in some] + [(value, False) for value in others])
    wins = below = 0.0
    i = 0
    while i < len(ranked):
        j = i
        while j < len(ranked) and ranked[j][0] == ranked[i][0]:
            j += 1
        equal = sum(is_first for _, is_first in ranked[i:j])
        unequal = j - i - equal
        wins += equal * below + equal * unequal / 2
        below += unequal
        i = j
    area = wins / (len(some) * len(others))
    return max(area, 1 - area)


async def timing_of_ids(world: World, scale: Scale) -> str:
    """Time root fields that take an id, of existing and of missing ones, in random order.

    The long form times all of them, the short form some that are drawn for each run.

    :raises Breach: for some field the times tell them apart, three times in a row.
    """
    async with world.http() as http:
        ids = await one_of_each(world, http)
        nobodys = dict.fromkeys(ids, NOBODYS)
        chance = random.Random(SEED)
        areas: dict[str, float] = {}
        fields = [(kind, name) for kind, name in with_ids() if kind != "subscription"]
        if len(fields) > scale.timed_fields:
            fields = random.sample(fields, scale.timed_fields)  # not by the seed: others in each run
        for kind, name in fields:
            documents = [written(kind, name, each)[0] for each in (ids, nobodys)]
            area = 1.0
            for _ in range(_REPEATS):
                area = min(area, await _area(world, http, documents, scale.timings, chance))
                if area <= AUC_BOUND:
                    break
            areas[name] = area
    worst = max(areas, key=lambda name: areas[name])
    found = f"{len(fields)} fields, {scale.timings} times each: {areas[worst]:.2f} at most ({worst})"
    if areas[worst] > AUC_BOUND:
        raise Breach(f"the time of an answer tells whether an id exists: {found}")
    return f"{found}, {statistics.median(areas.values()):.2f} in the middle; 0.50 is guessing"


async def _area(
    world: World, http: aiohttp.ClientSession, documents: Sequence[str], count: int, chance: random.Random
) -> float:
    headers = {"Authorization": f"Bearer {token(PROBER)}"}
    times: list[list[float]] = [[], []]
    order = [0, 1] * count
    chance.shuffle(order)
    for which in order:
        began = time.perf_counter()
        async with http.post(world.url, json={"query": documents[which]}, headers=headers) as answer:
            await answer.read()
        times[which].append(time.perf_counter() - began)
    return told_apart(*times)
