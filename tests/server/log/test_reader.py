"""SQL and the port's definition of a pattern select the same records."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_server.log.database import subject_key
from circuit_breaker_server.log.event_log import Record, matches
from circuit_breaker_server.log.packing import encode_record
from circuit_breaker_server.log.reader import Reader, Selector

_tokens = st.sampled_from(["a", "b", "[a]", "?", "a?", "A", "ü", "%2E"])
_names = st.lists(_tokens, min_size=1, max_size=4).map(".".join)
_patterns = st.builds(
    lambda tokens, last: ".".join(tokens + last),
    st.lists(st.one_of(_tokens, st.just("*")), min_size=1, max_size=3),
    st.sampled_from([[], [], [">"]]),
) | st.just(">")


@given(
    names=st.lists(_names, max_size=12),
    patterns=st.lists(_patterns, max_size=3),
    after=st.integers(0, 12),
    limit=st.integers(1, 5),
    max_bytes=st.none() | st.integers(1, 200),
)
def test_a_batch_is_what_matches_up_to_where_it_reached(
    names: list[str], patterns: list[str], after: int, limit: int, max_bytes: int | None
) -> None:
    records = [
        Record(offset=i, subject=name, id=f"{i:032x}", time_ms=0, data=b"") for i, name in enumerate(names, 1)
    ]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(
            "CREATE TABLE records (offset INTEGER PRIMARY KEY, subject_key, subject TEXT, id TEXT, body BLOB)"
        )
        rows = [(r.offset, subject_key(r.subject), r.subject, r.id, encode_record(r)) for r in records]
        connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
        (found, reached), size = Reader(connection, Path("events.db")).batch(
            Selector(patterns), after=after, upto=11, limit=limit, max_bytes=max_bytes
        )
    assert after < reached <= max(after, 11) or found == []
    assert len(found) <= limit
    if max_bytes is not None and found:
        # Without the last record, the bytes have not reached the bound.
        assert size - len(encode_record(found[-1])) < max_bytes
    assert found == [
        record
        for record in records
        if after < record.offset <= min(reached, 11) and any(matches(p, record.subject) for p in patterns)
    ]
