"""Read the part of YAML that the files of deploy/ are written in; refuse everything else.

The project has no YAML parser among its dependencies. This one reads mappings and lists in blocks, lists in
brackets, `{}` and mappings of plain texts in braces, plain and double-quoted texts on one line, and comments.
Every value is a text: it does not tell `true` from `"true"`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

__all__ = ["Value", "YamlError", "read_yaml", "texts_of", "yaml_of"]

Value: TypeAlias = "str | list[Value] | dict[str, Value]"

_COMMENT: Final = re.compile(r'^((?:[^"#]|"(?:[^"\\]|\\.)*"|(?<=[^ ])#)*?)(?:(?:^| )#.*)?$')
_KEY: Final = re.compile(r"([A-Za-z_][\w.-]*):(?: +(.*))?$")
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_REFUSED_FIRST: Final = "&*!|>%@`'\"?,]}[{-"


class YamlError(ValueError):
    """A file is not YAML, or has what this reader does not know."""


class _Line(NamedTuple):
    number: int
    indent: int
    text: str


def read_yaml(path: Path) -> dict[str, Value]:
    """Read a file.

    :raises YamlError: it has what this reader does not know.
    """
    return yaml_of(path.read_text(encoding="utf-8"))


def yaml_of(source: str) -> dict[str, Value]:
    """Read a text, as :func:`read_yaml`."""
    lines = []
    for number, raw in enumerate(source.splitlines(), start=1):
        found = _COMMENT.match(raw)
        if "\t" in raw or found is None:
            raise YamlError(f"line {number}: a tab, or a quotation mark without its partner")
        text = found[1].rstrip()
        if text:
            lines.append(_Line(number, len(text) - len(text.lstrip()), text.lstrip()))
    if not lines:
        raise YamlError("the file is empty")
    value, rest = _block(lines, 0)
    if rest:
        raise YamlError(f"line {rest[0].number}: the indentation is that of no block")
    if not isinstance(value, dict):
        raise YamlError("the file is no mapping")
    return value


def texts_of(value: Value) -> list[str]:
    """Return a list of texts as such.

    :raises TypeError: it is something else.
    """
    if isinstance(value, list):
        texts = [each for each in value if isinstance(each, str)]
        if len(texts) == len(value):
            return texts
    raise TypeError(f"{value!r} is no list of texts")


def _block(lines: list[_Line], indent: int) -> tuple[Value, list[_Line]]:
    """Read the lines of one block; return its value and the lines behind it."""
    if lines[0].text.startswith("- "):
        return _list(lines, indent)
    mapping: dict[str, Value] = {}
    while lines and lines[0].indent == indent and not lines[0].text.startswith("- "):
        line, *lines = lines
        found = _KEY.match(line.text)
        if found is None:
            raise YamlError(f"line {line.number}: no key: {line.text}")
        if found[1] in mapping:
            raise YamlError(f"line {line.number}: {found[1]} is there twice")
        if found[2] is not None:
            mapping[found[1]] = _value(found[2], line.number)
        elif lines and lines[0].indent > indent:
            mapping[found[1]], lines = _block(lines, lines[0].indent)
        else:
            raise YamlError(f"line {line.number}: {found[1]} has no value")
    return mapping, lines


def _list(lines: list[_Line], indent: int) -> tuple[Value, list[_Line]]:
    items: list[Value] = []
    while lines and lines[0].indent == indent and lines[0].text.startswith("- "):
        line, *lines = lines
        text = line.text[2:].lstrip()
        if _KEY.match(text):
            inner = indent + len(line.text) - len(text)
            item, lines = _block([_Line(line.number, inner, text), *lines], inner)
            items.append(item)
        else:
            items.append(_value(text, line.number))
    return items, lines


def _value(text: str, number: int) -> Value:
    if text.startswith("["):
        if not text.endswith("]"):
            raise YamlError(f"line {number}: a list without its end")
        parts = _split(text[1:-1])
        return [_value(part, number) for part in parts]
    if text.startswith("{"):
        if not text.endswith("}"):
            raise YamlError(f"line {number}: a mapping without its end")
        pairs = [_KEY.match(part) for part in _split(text[1:-1])]
        return {pair[1]: _value(pair[2], number) for pair in pairs if pair is not None and pair[2]}
    if _QUOTED.fullmatch(text):
        return str(json.loads(text))
    if text[0] in _REFUSED_FIRST or ": " in text or text.endswith(":"):
        raise YamlError(f"line {number}: not a text on one line: {text}")
    return text


def _split(text: str) -> list[str]:
    """Split at the commas outside of quotation marks."""
    return [part.strip() for part in re.findall(r'(?:[^",]|"(?:[^"\\]|\\.)*")+', text) if part.strip()]
