"""Carry an error through ``pickle`` and ``copy`` with its attributes, its notes and what it is chained to."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import TypeVar, final

__all__ = ["ErrorLink", "restored", "shown"]

E = TypeVar("E", bound=BaseException)


@final
class _ChainedError(Exception):
    """Stand for a chained error that cannot be pickled: it has that error's text."""

    def __repr__(self) -> str:
        return str(self)


@final
class ErrorLink:
    """The chain of an error (cause, context), carried through ``pickle`` and ``copy``.

    It is pickled apart: an error of an application that cannot be pickled, or read again, must not take the
    error that is chained to it along.
    """

    __slots__ = ("error", "is_cause", "is_context_hidden")

    def __init__(self, of: BaseException) -> None:
        self.is_cause: bool = of.__cause__ is not None
        self.is_context_hidden: bool = of.__suppress_context__
        # One of them: where both are set they are mostly the same, and only the cause is ever shown.
        self.error: BaseException | None = (
            of.__cause__ if self.is_cause else None if of.__suppress_context__ else of.__context__
        )

    def attach(self, to: BaseException) -> None:
        """Chain an error as the one that this was made of."""
        if self.is_cause:
            to.__cause__ = self.error
        else:
            to.__context__ = self.error
        to.__suppress_context__ = self.is_context_hidden

    def __deepcopy__(self, _memo: object) -> ErrorLink:
        return self  # a copy is chained to the same error

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        error = self.error
        if error is None:
            return _read_link, (None, "", None, self.is_cause, self.is_context_hidden)
        # An error of the SDK has its link inside; what others are chained to is lost by their own way.
        onward = None if getattr(error, "carries_its_chain", False) else ErrorLink(error)
        try:
            pickled, links = pickle.dumps(error), pickle.dumps(onward)
        except Exception:  # noqa: BLE001 (an application's error may raise anything there)
            pickled, links = None, None
        return _read_link, (pickled, shown(error), links, self.is_cause, self.is_context_hidden)


def _read_link(
    pickled: bytes | None, text: str, onward: bytes | None, is_cause: bool, is_context_hidden: bool
) -> ErrorLink:
    link = ErrorLink(_ChainedError())
    link.is_cause, link.is_context_hidden = is_cause, is_context_hidden
    if text:
        link.error = _read_error(pickled, onward) or _ChainedError(text)
    return link


def _read_error(pickled: bytes | None, onward: bytes | None) -> BaseException | None:
    if pickled is None or onward is None:
        return None
    try:
        # Both were written by `ErrorLink.__reduce__`, and came inside what the caller unpickles anyway.
        error, links = pickle.loads(pickled), pickle.loads(onward)  # noqa: S301 (as said above)
    except Exception:  # noqa: BLE001 (as above)
        return None
    if not isinstance(error, BaseException):
        return None
    if isinstance(links, ErrorLink):
        links.attach(error)
    return error


def restored(cls: type[E], args: tuple[object, ...], attributes: Mapping[str, object], link: ErrorLink) -> E:
    """Make an error again from what it was pickled to, without calling its ``__init__``."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(attributes)
    if "__notes__" in error.__dict__:
        error.__notes__ = list(error.__notes__)  # a copy's notes are its own
    link.attach(error)
    return error


def shown(error: BaseException) -> str:
    """Return an error's ``repr``, or its class where that raises."""
    try:
        return repr(error)
    except Exception:  # noqa: BLE001 (an application's error may raise anything there)
        return f"{type(error).__qualname__}(…)"
