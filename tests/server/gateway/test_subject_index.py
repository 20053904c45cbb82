"""The index finds what the log's own rule of matching finds, and forgets what is removed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_server.gateway.subject_index import SubjectIndex
from circuit_breaker_server.log.event_log import matches

tokens = st.sampled_from(["a", "b", "c"])
subjects = st.lists(tokens, min_size=1, max_size=4).map(".".join)
patterns = st.builds(
    lambda path, rest: ".".join([*path, *rest]),
    st.lists(tokens | st.just("*"), min_size=1, max_size=3),
    st.sampled_from([[], [], [">"]]),
) | st.just(">")


@given(
    readers=st.lists(st.lists(patterns, min_size=1, max_size=3), max_size=8),
    removed=st.sets(st.integers(0, 7)),
    names=st.lists(subjects, max_size=8),
)
def test_the_index_agrees_with_matching_one_by_one(
    readers: list[list[str]], removed: set[int], names: list[str]
) -> None:
    index: SubjectIndex[int] = SubjectIndex()
    for reader, own in enumerate(readers):
        index.add(own, reader)
    for name in names:  # what was found once is remembered, and must be forgotten with every change
        assert set(index.find(name)) == {
            r for r, own in enumerate(readers) if any(matches(p, name) for p in own)
        }
    for reader in removed & set(range(len(readers))):
        index.remove(readers[reader], reader)
    kept = {r: own for r, own in enumerate(readers) if r not in removed}
    for name in names:
        found = list(index.find(name))
        assert len(found) == len(set(found)), "each reader once"
        assert set(found) == {r for r, own in kept.items() if any(matches(p, name) for p in own)}
    for reader, own in kept.items():
        index.remove(own, reader)
    assert not index, "nothing of a removed pattern stays"


def test_removing_what_was_never_added_changes_nothing() -> None:
    index: SubjectIndex[str] = SubjectIndex()
    index.add(["a.b"], "reader")
    index.remove(["a.b", "a.c", "x.y.z", "a.>"], "stranger")
    assert list(index.find("a.b")) == ["reader"]
