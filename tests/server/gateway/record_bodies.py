"""Random records of every kind, as the domains write them."""

from __future__ import annotations

import enum
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from circuit_breaker_server.engine.agents import records as agents
from circuit_breaker_server.engine.costs import records as costs
from circuit_breaker_server.engine.llm import records as llm
from circuit_breaker_server.engine.mcp import records as mcp
from circuit_breaker_server.engine.mcp.capabilities import Listing
from circuit_breaker_server.engine.record_bodies import VersionedBody
from circuit_breaker_server.engine.rules import records as rules
from circuit_breaker_server.engine.workflows import records as workflows
from circuit_breaker_server.log.event_log import Record

__all__ = ["BODIES", "records"]

BODIES: Final[Mapping[type[VersionedBody], str]] = {
    **dict.fromkeys(typing.get_args(workflows.Body), "resource.w.r"),
    **dict.fromkeys(typing.get_args(agents.Body), "execution.a.r.e"),
    **dict.fromkeys(typing.get_args(llm.Body), "completion.c"),
    **dict.fromkeys(typing.get_args(costs.Body), "cost.user.u"),
    **dict.fromkeys(typing.get_args(mcp.Body), "mcp.server.s"),
    **dict.fromkeys(typing.get_args(rules.Body), "rule.r"),
}
"""Every body that a record may have, and a subject of its domain."""

_TEXT: Final = st.text(max_size=4) | st.sampled_from(['a"b\\', "é\u2028", "plain"])
_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | _TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXT, inner, max_size=2),
    max_leaves=3,
)
_OBJECT: Final = st.dictionaries(_TEXT, _JSON, max_size=2)
_MOSTLY_OBJECT: Final = st.integers(0, 9).flatmap(lambda roll: _JSON if roll == 0 else _OBJECT)
_ENTRY: Final = st.fixed_dictionaries(
    {"timestamp": _TEXT, "activity": _TEXT, "fromState": _TEXT, "toState": _TEXT, "data": _JSON},
    optional={"triggeredBy": _TEXT, "natsSequence": _TEXT},
)


def _raw(values: st.SearchStrategy[Any]) -> st.SearchStrategy[msgspec.Raw]:
    return values.map(lambda value: msgspec.Raw(msgspec.json.encode(value)))


_OF_FIELD: Final[Mapping[tuple[str, str], st.SearchStrategy[Any]]] = {
    ("ResourceImage", "history"): st.lists(_raw(_ENTRY), min_size=1, max_size=2).map(tuple),
    ("ExecutionEnded", "status"): st.sampled_from(["COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"]),
    ("Note", "kind"): st.sampled_from(["PROGRESS", "LOG", "RETRY"]),
    ("Offer", "listed"): st.deferred(lambda: _struct(Listing)),
    ("Usage", "cost"): st.sampled_from([0.0, 1.5]),
    ("Budget", "limit"): st.sampled_from([1.0, 2.5]),
    ("_OfServer", "statuses"): st.lists(st.sampled_from(["HEALTHY", "OFFLINE", "strange"]), max_size=3).map(
        tuple
    ),
}
"""The values of fields that the domains restrict beyond their types."""


@functools.cache
def _of(kind: Any) -> st.SearchStrategy[Any]:  # noqa: PLR0911 (one return for each kind of type)
    """Generate values of a type of a record's field."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(_of(each) for each in arguments if each is not msgspec.UnsetType))
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return st.lists(_of(arguments[0]), max_size=2).map(tuple)
        return st.tuples(*map(_of, arguments))
    if origin is not None and issubclass(origin, Mapping):
        return st.dictionaries(_TEXT, _of(arguments[1]), max_size=2)
    if origin is typing.Literal or issubclass(kind, enum.Enum):
        return st.sampled_from(arguments or list(kind))
    return _struct(kind)


_SIMPLE: Final[Mapping[Any, st.SearchStrategy[Any]]] = {
    str: _TEXT,
    int: st.integers(-(2**31), 2**31 - 1),
    float: st.sampled_from([0.0, 0.25, 3.0]),
    bool: st.booleans(),
    type(None): st.none(),
    object: _JSON,
    msgspec.Raw: _raw(_MOSTLY_OBJECT),
}


def _struct(kind: Any) -> st.SearchStrategy[Any]:
    fields = {
        name: _field(kind, name, hint)
        for name, hint in typing.get_type_hints(kind).items()
        if name in kind.__struct_fields__ and name not in ("v", "idempotency")
    }
    return st.fixed_dictionaries(fields).map(lambda values: kind(**values))


def _field(kind: type, name: str, hint: Any) -> st.SearchStrategy[Any]:
    for base in kind.__mro__:
        if (base.__name__, name) in _OF_FIELD:
            return _OF_FIELD[base.__name__, name]
    return st.deferred(lambda: _of(hint))  # a rule holds rules


@st.composite
def records(draw: st.DrawFn, body: type[VersionedBody]) -> Record:
    """Generate a record with a body of this type."""
    return Record(
        offset=draw(st.integers(1, 10**6)),
        subject=BODIES[body],
        id=f"{draw(st.integers(0, 2**32 - 1)):032x}",
        time_ms=0,
        data=msgspec.json.encode(draw(_of(body))),
    )
