"""What type checkers must accept, with the types that they must infer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RIGHT_USES = Path(__file__).parent / "right_uses.txt"
CHECKERS = {
    "mypy": [sys.executable, "-m", "mypy", "--strict", "--config-file="],
    "basedpyright": [
        str(Path(sys.executable).parent / "basedpyright"),
        "--level",
        "error",
        "--pythonpath",
        sys.executable,
    ],
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("checker", CHECKERS)
def test_a_type_checker_accepts_each_right_use(checker: str, tmp_path: Path) -> None:
    module = tmp_path / "right_uses.py"
    module.write_text(RIGHT_USES.read_text())
    answer = subprocess.run(
        [*CHECKERS[checker], str(module)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=170,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
