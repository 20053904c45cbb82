"""Limits of one GraphQL operation: its text, its depth, its cost and its variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = ["DocumentLimits"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLimits:
    """Limit the size of one operation. The server refuses a larger one before it validates the document.

    The code is ``DOCUMENT_TOO_COMPLEX``, or ``INVALID_INPUT``; the message has the limit and what was
    found.

    :ivar max_characters: of the document's text.
    :ivar max_tokens: of the document; validation can take time that grows with the square of it.
    :ivar max_depth: levels of selections, fragments written out. What is inside of ``__schema`` and
        ``__type`` does not count: validation bounds that.
    :ivar max_aliases: in the document.
    :ivar max_root_fields: in one operation, fragments written out.
    :ivar max_directives: in the document, on any of its nodes.
    :ivar max_fields: in one operation, fragments written out.
    :ivar max_cost: values in the answer to one operation, estimated from the document and its variables: each
        list as long as ``first`` says, others 5 items.
    :ivar max_variables: how many values come with one operation.
    :ivar max_variables_bytes: all of them, as JSON without blanks.

    Example::

        ServerSettings(data_dir=Path("data"), document_limits=DocumentLimits(max_depth=20))
    """

    max_characters: int = 64 * 1024
    max_tokens: int = 5_000
    max_depth: int = 15
    max_aliases: int = 100
    max_root_fields: int = 100
    max_directives: int = 100
    max_fields: int = 10_000
    max_cost: int = 100_000
    max_variables: int = 200
    max_variables_bytes: int = 256 * 1024

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, not {getattr(self, name)}")
