"""No test module imports another: what tests share is in helper modules beside them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]


def imports_of_test_modules(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of each test module that a source imports, at any depth."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                imported = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names):
                imported = [f"{module}.{alias.name}" for alias in names]
            case _:
                continue
        for name in imported:
            package, *parts = name.split(".")
            if package == "tests" and any(part.startswith("test_") for part in parts):
                yield node.lineno, name


def test_no_module_imports_a_test_module() -> None:
    folders = [ROOT / name for name in ("tests", "scripts", "benchmarks")]
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    assert len(files) > 100, "the files of the tests are not where they were"
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}: move it into a helper module"
        for path in files
        for line, name in imports_of_test_modules(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from tests.server.test_app import site", [(1, "tests.server.test_app.site")]),
        ("from tests.server import test_app as app", [(1, "tests.server.test_app")]),
        ("\nimport tests.server.test_app", [(2, "tests.server.test_app")]),
        (
            "def run():\n    from tests.test_app import X, Y",
            [(2, "tests.test_app.X"), (2, "tests.test_app.Y")],
        ),
        ("from tests.server.site import site\nimport json, tests.waiting\nfrom os import path", []),
    ],
)
def test_every_form_of_an_import_is_found(source: str, found: list[tuple[int, str]]) -> None:
    assert list(imports_of_test_modules(source)) == found
