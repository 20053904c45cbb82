"""Ids are random, of the right version, and never come twice, also where one handful of bytes ends."""

from __future__ import annotations

import uuid

from circuit_breaker_server.engine.ids import RandomIds


def test_ids_are_uuids_of_version_four_and_all_different() -> None:
    ids = RandomIds()
    made = [ids.uuid() for _ in range(1_000)]
    assert len(set(made)) == 1_000
    read = [uuid.UUID(text) for text in made]
    assert {(id_.version, id_.variant) for id_ in read} == {(4, uuid.RFC_4122)}
    assert [str(id_) for id_ in read] == made


def test_digits_are_all_different_too_and_every_bit_of_them_changes() -> None:
    ids = RandomIds()
    made = [int(ids.hex(), 16) for _ in range(1_000)]
    assert len(set(made)) == 1_000
    first, changed = made[0], 0
    for number in made:
        changed |= number ^ first
    assert changed == 2**128 - 1


def test_two_makers_share_nothing() -> None:
    first, second = RandomIds(), RandomIds()
    assert not {first.hex() for _ in range(300)} & {second.hex() for _ in range(300)}
