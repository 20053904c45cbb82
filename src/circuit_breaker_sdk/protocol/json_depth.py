"""The limit on the nesting of JSON: the same for every interpreter."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["MAX_DEPTH", "check_depth"]

MAX_DEPTH: Final = 500
"""Objects and arrays inside each other. Below what the decoder of any Python reads (3.11: about 990)."""

# A text without an end goes to the end of the data: each byte is looked at once, whatever is sent.
_BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def check_depth(data: bytes) -> None:
    """Refuse JSON that is nested too deep.

    :raises RecursionError: it is nested deeper than 500.
    """
    # Nearly everything has fewer brackets than that, and is looked through at the speed of memory.
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for found in _BRACKETS.finditer(data):
        match data[found.start()]:
            case 0x5B | 0x7B:
                depth += 1
                if depth > MAX_DEPTH:
                    raise RecursionError(f"it is nested deeper than {MAX_DEPTH}")
            case 0x5D | 0x7D:
                depth -= 1
