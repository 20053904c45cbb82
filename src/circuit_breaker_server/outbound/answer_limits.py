"""Limit the size of answers from servers that callers have named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

__all__ = ["AnswerLimits"]

_MIB: Final = 1024 * 1024
_MOST: Final = {"max_line_bytes": _MIB, "max_text_bytes": 2 * _MIB}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerLimits:
    """Limit the answers of providers of language models, MCP servers and token endpoints.

    The server requests no compression, and refuses an answer that is compressed all the same.

    :ivar max_answer_bytes: an answer that is read whole; all answers to one check of an MCP server together.
    :ivar max_stream_bytes: an answer that is read piece by piece: a completion. Of it only the text is kept.
    :ivar max_line_bytes: one line of an answer; at most 1 MiB, so that a piece fits into a record of the log.
    :ivar max_pieces: of a completion.
    :ivar max_text_bytes: a completion's text and calls of functions, as JSON; at most 2 MiB, likewise.

    Example::

        ServerSettings(data_dir=Path("data"), answer_limits=AnswerLimits(max_pieces=10_000))
    """

    max_answer_bytes: int = 8 * _MIB
    max_stream_bytes: int = 64 * _MIB
    max_line_bytes: int = _MIB
    max_pieces: int = 100_000
    max_text_bytes: int = 2 * _MIB

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value, most = getattr(self, name), _MOST.get(name)
            if not value > 0:
                raise ValueError(f"{name} must be greater than 0, not {value}")
            if most is not None and value > most:
                raise ValueError(f"{name} must be {most} at most, not {value}")
