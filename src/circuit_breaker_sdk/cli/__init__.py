"""The command ``circuit-breaker``: ``serve``, ``watch``, ``demo``, ``keys``, ``policy``, ``audit``."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

__all__ = ["main"]

_EXTRAS = {
    "rich": "cli",
    "typer": "cli",
    "cryptography": "server",
    "graphql": "server",
    "httpx2": "server",
    "joserfc": "server",
    "mcp": "mcp",
    "openai": "llm",
    "starlette": "server",
    "structlog": "server",
    "uvicorn": "server",
}
_USAGE = 2


def main() -> NoReturn:
    """Run the command line and exit with its status (see ``circuit-breaker --help``).

    Commands need the extra ``cli``; ``serve``, ``demo``, ``keys``, ``policy``, ``log`` and ``audit`` also
    ``server``, and ``demo`` all of them (``all``). Where one is missing, one line says what to install.
    """
    try:
        # By name, because this module must load without the extras to be able to say that they are missing.
        importlib.import_module("circuit_breaker_sdk.cli.app").run()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = _EXTRAS.get(package)
        if extra is None:
            raise
        sys.stderr.write(
            f"error: this command needs the package {package!r} of the extra [{extra}]: "
            "pip install 'circuit-breaker-sdk[all]'\n"
        )
        sys.exit(_USAGE)
    sys.exit(0)
