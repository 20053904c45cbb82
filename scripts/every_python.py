"""``make test-all``: run the tests on every Python that is supported and that this machine has.

Each version has an environment of its own, ``.venv-3.12`` and so on, made once. A version that is not found
is said to be missing; only where none is found is that an error. Nothing but the standard library is needed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["find_python", "supported_versions"]

_ROOT = Path(__file__).parents[1]


def supported_versions(pyproject: str) -> list[str]:
    """Return the versions that the classifiers name, as ``3.11``."""
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', pyproject)


def find_python(version: str) -> str | None:
    """Return an interpreter of this version: of the path, or of pyenv."""
    found = shutil.which(f"python{version}")
    versions = (Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python")
    # What is on the path may be pyenv's stand-in for one that is not chosen here.
    for candidate in (found, *sorted(map(str, versions), reverse=True)):
        if candidate is not None and _is_version(candidate, version):
            return candidate
    return None


def _is_version(python: str, version: str) -> bool:
    said = "import sys; print('%d.%d' % sys.version_info[:2])"
    result = subprocess.run(  # noqa: S603 (an interpreter that was found)
        [python, "-c", said], capture_output=True, text=True, check=False
    )
    return result.stdout.strip() == version


def _test(version: str, python: str, arguments: Sequence[str]) -> int:
    environment = f".venv-{version}"
    make = ["make", "--no-print-directory", "test", f"PYTHON={python}", f"VENV={environment}"]
    if arguments:
        make.append(f"ARGS={' '.join(arguments)}")
    print(f"Python {version} ({environment})", flush=True)
    return subprocess.run(make, cwd=_ROOT, check=False).returncode  # noqa: S603 (make, and our arguments)


def main(arguments: Sequence[str]) -> int:
    """Test each version; return the number of those that failed."""
    verdicts: dict[str, str] = {}
    for version in supported_versions((_ROOT / "pyproject.toml").read_text(encoding="utf-8")):
        python = find_python(version)
        if python is None:
            verdicts[version] = "missing on this machine"
        else:
            verdicts[version] = "passed" if _test(version, python, arguments) == 0 else "FAILED"
    for version, verdict in verdicts.items():
        print(f"Python {version}: {verdict}")
    failed = list(verdicts.values()).count("FAILED")
    return failed if "passed" in verdicts.values() else max(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
