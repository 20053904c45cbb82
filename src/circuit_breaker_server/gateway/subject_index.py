"""Index readers by subject pattern, to find those that a record concerns without a check of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar, final

__all__ = ["SubjectIndex"]

T = TypeVar("T")

_REMEMBERED = 10_000
"""Subjects whose readers are remembered at a time."""


class _Node(Generic[T]):
    __slots__ = ("children", "here", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.here: dict[T, None] = {}
        """Entries whose pattern ends here."""
        self.rest: dict[T, None] = {}
        """Entries whose pattern ends here in ``>``."""

    def is_empty(self) -> bool:
        return not (self.children or self.here or self.rest)


@final
class SubjectIndex(Generic[T]):
    """Patterns of subjects, as a tree of tokens; finds what matches in time of the subject's length.

    Agrees with :func:`circuit_breaker_server.log.event_log.matches`.

    Example::

        index: SubjectIndex[str] = SubjectIndex()
        index.add(["resource.w1.*"], "reader")
        index.find("resource.w1.r1")
    """

    __slots__ = ("_found", "_root")

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        # Subjects come again and again; the answers are forgotten with every change.
        self._found: dict[str, tuple[T, ...]] = {}

    def add(self, patterns: Iterable[str], reader: T) -> None:
        """Register a reader under each of its patterns."""
        self._found.clear()
        for pattern in patterns:
            tokens = pattern.split(".")
            is_open = tokens[-1] == ">"
            node = self._root
            for token in tokens[:-1] if is_open else tokens:
                node = node.children.setdefault(token, _Node())
            (node.rest if is_open else node.here)[reader] = None

    def remove(self, patterns: Iterable[str], reader: T) -> None:
        """Forget a reader under each of its patterns; unknown ones are ignored."""
        self._found.clear()
        for pattern in patterns:
            tokens = pattern.split(".")
            is_open = tokens[-1] == ">"
            path = [self._root]
            for token in tokens[:-1] if is_open else tokens:
                child = path[-1].children.get(token)
                if child is None:
                    break
                path.append(child)
            else:
                (path[-1].rest if is_open else path[-1].here).pop(reader, None)
                self._prune(path, tokens)

    @staticmethod
    def _prune(path: list[_Node[T]], tokens: list[str]) -> None:
        for depth in range(len(path) - 1, 0, -1):
            if not path[depth].is_empty():
                return
            del path[depth - 1].children[tokens[depth - 1]]

    def find(self, subject: str) -> tuple[T, ...]:
        """Return the readers with a pattern that matches, each once."""
        found = self._found.get(subject)
        if found is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            found = self._found[subject] = tuple(self._look_up(subject))
        return found

    def _look_up(self, subject: str) -> Iterable[T]:
        level = [self._root]
        found: dict[T, None] = {}
        for token in subject.split("."):
            below: list[_Node[T]] = []
            for node in level:
                # `>` stands for one token or more, and here is one.
                if node.rest:
                    found.update(node.rest)
                children = node.children
                if (child := children.get(token)) is not None:
                    below.append(child)
                if token != "*" and (child := children.get("*")) is not None:  # noqa: S105 (a wildcard, no secret)
                    below.append(child)
            if not below:
                return found
            level = below
        for node in level:
            if node.here:
                found.update(node.here)
        return found

    def __bool__(self) -> bool:
        return not self._root.is_empty()
