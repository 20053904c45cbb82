"""docs/settings.md is what the definitions of the settings say."""

from __future__ import annotations

from scripts.settings_reference import DOCUMENT, write_reference


def test_the_page_is_written_from_the_definitions() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == write_reference(), "make generate writes it anew"
