"""What the type checker must reject, line by line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

WRONG_USES = Path(__file__).parent / "wrong_uses.txt"


def test_mypy_rejects_each_wrong_use_for_its_reason_and_nothing_else(tmp_path: Path) -> None:
    source = WRONG_USES.read_text()
    module = tmp_path / "wrong_uses.py"
    module.write_text(source)
    answer = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file=", str(module)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    found = {
        (int(line), code)
        for line, code in re.findall(r"\.py:(\d+): error: .* \[([a-z-]+)\]$", answer.stdout, re.M)
    }
    expected = {
        (number, comment[1])
        for number, line in enumerate(source.splitlines(), start=1)
        if (comment := re.search(r"  # ([a-z-]+)$", line))
    }
    assert found == expected, answer.stdout + answer.stderr
