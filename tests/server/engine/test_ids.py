"""Ids are random, of the right version, and never come twice, also where one handful of bytes ends."""

from __future__ import annotations

from circuit_breaker_server.engine.ids import RandomIds


def test_ids_are_uuids_of_version_four_and_all_different() -> None:
    new_id = RandomIds()
    ids = [new_id() for _ in range(1_000)]
    assert len(set(ids)) == 1_000
    assert {id_.version for id_ in ids} == {4}


def test_two_makers_share_nothing() -> None:
    first, second = RandomIds(), RandomIds()
    assert not {first() for _ in range(300)} & {second() for _ in range(300)}
