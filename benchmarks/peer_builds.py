"""Build the peers that are compiled: Centrifugo with Go, the client of graphql-ws-client with Cargo.

A build takes minutes and fetches sources. The short form and automatic checks therefore never build: there, a
peer is measured only if an earlier run has built it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, final

import msgspec

from benchmarks.row import Scale

__all__ = ["CENTRIFUGO", "CENTRIFUGO_VERSION", "RUST_CLIENT", "Build", "may_build", "program_of"]

_PEERS: Final = Path(__file__).parent / "peers"
CENTRIFUGO_VERSION: Final = "v6.9.1"


@final
class Build(msgspec.Struct, frozen=True, kw_only=True):
    """How a peer is built.

    :ivar peer: the peer's name.
    :ivar tool: the command that builds it, found on the ``PATH``.
    :ivar arguments: the arguments of that command.
    :ivar directory: where the command runs.
    :ivar program: the executable that it makes.
    :ivar sources: the text it is made from; a program that was made from another text is out of date.
    :ivar environment: variables that the command gets besides those of this process.
    """

    peer: str
    tool: str
    arguments: Sequence[str]
    directory: Path
    program: Path
    sources: str
    environment: Mapping[str, str] = {}


_GO: Final = _PEERS / "go"
CENTRIFUGO: Final = Build(
    peer="Centrifugo",
    tool="go",
    arguments=("install", f"github.com/centrifugal/centrifugo/v6@{CENTRIFUGO_VERSION}"),
    directory=_PEERS,
    program=_GO / "centrifugo",
    sources=CENTRIFUGO_VERSION,
    environment={"GOBIN": str(_GO)},
)

_RUST: Final = _PEERS / "rust-client"
RUST_CLIENT: Final = Build(
    peer="graphql-ws-client",
    tool="cargo",
    arguments=("build", "--release", "--locked", "--quiet", "--target-dir", "target"),
    directory=_RUST,
    program=_RUST / "target" / "release" / "rust-client",
    sources="".join((_RUST / name).read_text() for name in ("Cargo.toml", "Cargo.lock", "src/main.rs")),
)


def may_build(scale: Scale) -> bool:
    """Return whether this run may build: not in the short form, and not where ``CI`` is set."""
    return not scale.short and not os.environ.get("CI")


def program_of(build: Build, *, allowed: bool) -> Path | str:
    """Return a peer's program, built first where it is missing or out of date; or why there is none.

    :param allowed: whether to build; see :func:`may_build`.
    """
    stamp = build.program.with_name(f".{build.program.name}-sources")
    if build.program.exists() and stamp.exists() and stamp.read_text() == build.sources:
        return build.program
    tool = shutil.which(build.tool)
    if tool is None:
        return f"not measured: there is no {build.tool} on the PATH"
    if not allowed:
        return f"not measured: {build.peer} is not built, and only a full run outside CI builds it"
    done = subprocess.run(
        [tool, *build.arguments],
        cwd=build.directory,
        env={**os.environ, **build.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        return f"not measured: {build.tool} cannot build {build.peer} ({said[-1]})"
    stamp.write_text(build.sources)
    return build.program
