"""Servers may repeat what they were told: secrets are taken out of every text before it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar, final

import msgspec

from circuit_breaker_sdk.errors import CircuitBreakerError, GraphQLError

__all__ = ["NOTHING_TO_REDACT", "Redaction", "texts_in"]

E = TypeVar("E", bound=CircuitBreakerError)

_SHOWN: Final = "[redacted]"
# Shorter texts are found in everything, and are no secrets.
_MIN_CHARACTERS: Final = 6
# A close reason or an excerpt may end in the middle of a secret: so much of its beginning gives it away.
_BEGINNING: Final = 8
_MAX_DEPTH: Final = 8


@final
class Redaction:
    """Takes secrets out of texts, of GraphQL errors and of our exceptions with what they are chained to.

    :param secrets: gives the secrets of now; asked each time. Those under six characters are left alone.

    Example::

        Redaction(lambda: ["s3cret-token"]).text("unknown token s3cret-token")   # "unknown token [redacted]"
    """

    __slots__ = ("_secrets",)

    def __init__(self, secrets: Callable[[], Iterable[str]]) -> None:
        self._secrets = secrets

    def text(self, text: str) -> str:
        """Return ``text`` with ``[redacted]`` for each secret, whole or cut at its end."""
        return self._without(text, self._known())

    def errors(self, errors: tuple[GraphQLError, ...]) -> tuple[GraphQLError, ...]:
        """Return a server's errors without secrets, in their messages and beside them."""
        known = self._known()
        return tuple(self._graphql_error(error, known) for error in errors) if known else errors

    def error(self, error: E) -> E:
        """Take secrets out of an error, in place, and cut off what it is chained to if that holds one."""
        known = self._known()
        if not known:
            return error
        for name, value in vars(error).items():
            if isinstance(value, str):
                setattr(error, name, self._without(value, known))
        error.args = tuple(self._without(a, known) if isinstance(a, str) else a for a in error.args)
        seen: set[int] = set()
        link: BaseException | None = error
        while link is not None and id(link) not in seen:
            seen.add(id(link))
            if link.__cause__ is not None and self._tells(link.__cause__, known):
                link.__cause__ = None
            if link.__context__ is not None and self._tells(link.__context__, known):
                link.__context__ = None
            link = link.__cause__ or link.__context__
        return error

    def _known(self) -> list[str]:
        # The longest first: one may be part of another.
        return sorted({s for s in self._secrets() if len(s) >= _MIN_CHARACTERS}, key=len, reverse=True)

    def _tells(self, error: BaseException, known: Sequence[str]) -> bool:
        shown = f"{error} {error!r}"
        return self._without(shown, known) != shown

    def _graphql_error(self, error: GraphQLError, known: Sequence[str]) -> GraphQLError:
        message = self._without(error.message, known)
        if error.extensions is None and error.path is None:
            return error if message == error.message else msgspec.structs.replace(error, message=message)
        try:
            beside = msgspec.json.encode((error.path, error.extensions)).decode()
            shown = self._without(beside, known)
            if (message, shown) == (error.message, beside):
                return error
            path, extensions = msgspec.json.decode(
                shown, type=tuple[tuple[str | int, ...] | None, dict[str, object] | None]
            )
        except (ValueError, TypeError, RecursionError):
            # What cannot be looked through is not shown.
            path = extensions = None
        return msgspec.structs.replace(error, message=message, path=path, extensions=extensions)

    def _without(self, text: str, known: Sequence[str]) -> str:
        for secret in known:
            if secret in text:
                text = text.replace(secret, _SHOWN)
            written = secret.replace("\\", "\\\\").replace('"', '\\"')  # as in JSON
            if written != secret:
                text = text.replace(written, _SHOWN)
            if len(secret) > _BEGINNING:
                text = _without_beginning(text, secret)
        return text


def _without_beginning(text: str, secret: str) -> str:
    beginning = secret[:_BEGINNING]
    at = text.find(beginning)
    if at < 0:
        return text
    # In one pass: a server that knows the secret may repeat its beginning a million times.
    parts: list[str] = []
    end = 0
    while at >= 0:
        parts += (text[end:at], _SHOWN)
        end = at + _BEGINNING
        for character in secret[_BEGINNING:]:
            if text[end : end + 1] != character:
                break
            end += 1
        at = text.find(beginning, end)
    return "".join((*parts, text[end:]))


def texts_in(value: object, depth: int = _MAX_DEPTH) -> Iterable[str]:
    """Yield every text in a value of mappings and lists, and the words behind a scheme such as ``Bearer``."""
    if isinstance(value, str):
        yield value
        yield from value.split()[1:]
    elif isinstance(value, Mapping) and depth:
        for inner in value.values():
            yield from texts_in(inner, depth - 1)
    elif isinstance(value, list | tuple) and depth:
        for inner in value:
            yield from texts_in(inner, depth - 1)


NOTHING_TO_REDACT: Final = Redaction(tuple)
"""For a connection without credentials."""
