"""Filters as values: made by kind, combined with ``&``, ``|`` and ``~``, split between server and client."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar, final

import msgspec

from circuit_breaker_sdk.errors import UsageError

__all__ = ["Custom", "SubscriptionFilter", "as_filter", "conjuncts", "split"]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class SubscriptionFilter(msgspec.Struct, Generic[T_contra], frozen=True):
    """Say which events a subscription lets through; a frozen value that is called with an event.

    Combine with ``&`` (both), ``|`` (either) and ``~`` (not). On a builder, the parts of a conjunction that
    are an argument of the operation are applied by the server, the rest by the client; on a live
    subscription the client applies all, from the next event on.

    A filter by attribute raises :class:`UsageError` where the event type has no such attribute: when it is
    attached to a builder or subscription, or when it is called.

    Example::

        wanted = SubscriptionFilter.WorkflowId("w-1") & ~SubscriptionFilter.State("draft")
        async for resource in client.workflows.subscribe_resource_updates().filter(wanted):
            print(resource.state)
    """

    @staticmethod
    def ResourceId(resource_id: str) -> SubscriptionFilter[object]:  # noqa: N802 (the name users expect)
        """Events of this resource: ``resource_id``, or ``id`` where the event is a ``Resource``."""
        return Attribute("resource_id", _text(resource_id))

    @staticmethod
    def WorkflowId(workflow_id: str) -> SubscriptionFilter[object]:  # noqa: N802 (as above)
        """Events of this workflow: ``workflow_id``."""
        return Attribute("workflow_id", _text(workflow_id))

    @staticmethod
    def State(state: str) -> SubscriptionFilter[object]:  # noqa: N802 (as above)
        """Events with this ``state``."""
        return Attribute("state", _text(state))

    @staticmethod
    def UserId(user_id: str) -> SubscriptionFilter[object]:  # noqa: N802 (as above)
        """Events of this user: ``user_id``."""
        return Attribute("user_id", _text(user_id))

    @staticmethod
    def ProjectId(project_id: str) -> SubscriptionFilter[object]:  # noqa: N802 (as above)
        """Events of this project: ``project_id``."""
        return Attribute("project_id", _text(project_id))

    @staticmethod
    def Custom(predicate: Callable[[T], object]) -> SubscriptionFilter[T]:  # noqa: N802 (as above)
        """Events for which ``predicate`` is true; it runs in the read callback, so it is a plain function.

        :raises UsageError: it is no plain function: what an async one returns is always true.
        """
        return Custom(_plain_function(predicate))

    def __call__(self, event: T_contra) -> bool:
        """Tell whether the event is let through.

        :raises UsageError: the event has no attribute that the filter reads.
        """
        raise NotImplementedError

    def __and__(self: SubscriptionFilter[T], other: SubscriptionFilter[T]) -> SubscriptionFilter[T]:
        if not isinstance(other, SubscriptionFilter):
            return NotImplemented
        return AllOf((*conjuncts(self), *conjuncts(other)))

    def __or__(self: SubscriptionFilter[T], other: SubscriptionFilter[T]) -> SubscriptionFilter[T]:
        if not isinstance(other, SubscriptionFilter):
            return NotImplemented
        return AnyOf((*_alternatives(self), *_alternatives(other)))

    def __invert__(self) -> SubscriptionFilter[T_contra]:
        return Not(self)

    def check(self, event_type: object) -> None:
        """Refuse to be applied to events of a type that lacks an attribute.

        :raises UsageError: it names the attribute and the type.
        """
        raise NotImplementedError


@final
class Attribute(SubscriptionFilter[object], frozen=True):
    """Compare one attribute with a text."""

    name: str
    value: str

    def __call__(self, event: object) -> bool:
        name = _attribute_of(type(event), self.name)
        try:
            found: object = getattr(event, name)
        except AttributeError:
            raise _missing(type(event), self.name) from None
        return found == self.value

    def check(self, event_type: object) -> None:
        for member in _members(event_type):
            if not _has_attribute(member, _attribute_of(member, self.name)):
                raise _missing(member, self.name)


@final
class Custom(SubscriptionFilter[T_contra], frozen=True):
    """Ask a function of the application."""

    predicate: Callable[[T_contra], object]

    def __call__(self, event: T_contra) -> bool:
        return bool(self.predicate(event))

    def check(self, event_type: object) -> None:
        pass


@final
class AllOf(SubscriptionFilter[T_contra], frozen=True):
    """Let through what every part does: a conjunction, flat."""

    parts: tuple[SubscriptionFilter[T_contra], ...]

    def __call__(self, event: T_contra) -> bool:
        return all(part(event) for part in self.parts)

    def check(self, event_type: object) -> None:
        for part in self.parts:
            part.check(event_type)


@final
class AnyOf(SubscriptionFilter[T_contra], frozen=True):
    """Let through what any part does: a disjunction, flat."""

    parts: tuple[SubscriptionFilter[T_contra], ...]

    def __call__(self, event: T_contra) -> bool:
        return any(part(event) for part in self.parts)

    def check(self, event_type: object) -> None:
        for part in self.parts:
            part.check(event_type)


@final
class Not(SubscriptionFilter[T_contra], frozen=True):
    """Let through what its part does not."""

    part: SubscriptionFilter[T_contra]

    def __call__(self, event: T_contra) -> bool:
        return not self.part(event)

    def __invert__(self) -> SubscriptionFilter[T_contra]:
        return self.part

    def check(self, event_type: object) -> None:
        self.part.check(event_type)


def as_filter(predicate: Callable[[T], object]) -> SubscriptionFilter[T]:
    """Return a filter as it is, a plain predicate as a custom one.

    :raises UsageError: it is no plain function.
    """
    return predicate if isinstance(predicate, SubscriptionFilter) else SubscriptionFilter.Custom(predicate)


def conjuncts(whole: SubscriptionFilter[T]) -> tuple[SubscriptionFilter[T], ...]:
    """Return what must all hold: the parts of a conjunction, or the filter itself."""
    return whole.parts if isinstance(whole, AllOf) else (whole,)


def split(
    whole: SubscriptionFilter[T], arguments: Collection[str]
) -> tuple[dict[str, str], tuple[SubscriptionFilter[T], ...]]:
    """Split into variables for the server and conjuncts for the client; together they select the same.

    :param arguments: the operation's arguments, by their name in the schema, that are free to be set and
        select by the attribute of the same name.
    """
    variables: dict[str, str] = {}
    rest: list[SubscriptionFilter[T]] = []
    for part in conjuncts(whole):
        if isinstance(part, Attribute):
            argument = _ARGUMENTS[part.name]
            # A second value for the same argument selects nothing; the server can take only one of them.
            if argument in arguments and variables.setdefault(argument, part.value) == part.value:
                continue
        rest.append(part)
    return variables, tuple(rest)


_ARGUMENTS = {
    "resource_id": "resourceId",
    "workflow_id": "workflowId",
    "state": "state",
    "user_id": "userId",
    "project_id": "projectId",
}


def _alternatives(whole: SubscriptionFilter[T]) -> tuple[SubscriptionFilter[T], ...]:
    return whole.parts if isinstance(whole, AnyOf) else (whole,)


def _plain_function(predicate: Callable[[T], object]) -> Callable[[T], object]:
    found: object = predicate
    if not callable(found) or inspect.iscoroutinefunction(found):
        raise UsageError(f"a filter is a plain function of an event, not {found!r}")
    return predicate


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"a filter compares with text, not with {value!r}")
    return value


def _members(event_type: object) -> tuple[object, ...]:
    if isinstance(event_type, types.UnionType) or typing.get_origin(event_type) is typing.Union:
        return typing.get_args(event_type)
    return (event_type,)


def _attribute_of(event_type: object, name: str) -> str:
    other_names: Mapping[str, str] = getattr(event_type, "filter_names", {})
    return other_names.get(name, name)


def _has_attribute(event_type: object, name: str) -> bool:
    # A field of a dataclass without a default is no attribute of the class, only an annotation. A TypedDict
    # has annotations too, but its values have keys.
    if not isinstance(event_type, type) or typing.is_typeddict(event_type):
        return False
    annotated = any(name in vars(base).get("__annotations__", ()) for base in event_type.__mro__)
    return annotated or hasattr(event_type, name)


def _missing(event_type: object, name: str) -> UsageError:
    type_name = getattr(event_type, "__name__", None) or str(event_type)
    return UsageError(
        f"{type_name} has no attribute {name}, which the filter reads: use SubscriptionFilter.Custom"
    )
