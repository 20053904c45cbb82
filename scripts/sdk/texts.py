"""Docstrings and headers of what is generated."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

__all__ = ["HEADER", "WIDTH", "docstring", "prose"]

HEADER = "# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.\n"
WIDTH = 110


def prose(text: str | None) -> str:
    """Write a description of the schema as a docstring has it."""
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", " ".join((text or "").split()))


def docstring(text: str, lines: Sequence[tuple[str, str]] = (), *, indent: int = 4, after: str = "") -> str:
    """Write a docstring: a sentence, then a line for each named thing, then what comes after them."""
    pad, width = " " * indent, WIDTH - indent
    found = re.match(r"(.+?[.…])(?: (.*))?$", text if text.endswith((".", "…")) else text + ".")
    sentence, rest = (found[1], found[2] or "") if found else (text, "")
    parts = ["\n".join(textwrap.wrap(sentence, width - 6))]
    if rest:
        parts.append(textwrap.fill(rest, width))
    if lines:
        told = (textwrap.fill(f":ivar {n}: {said}", width, subsequent_indent="    ") for n, said in lines)
        parts.append("\n".join(told))
    if after:
        parts.append(textwrap.dedent(after).strip("\n"))
    whole = '"""' + "\n\n".join(parts)
    end = "\n" if "\n" in whole else ""
    return textwrap.indent(f'{whole}{end}"""\n', pad, lambda line: bool(line.strip()))
