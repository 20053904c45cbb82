"""Single key presses, where stdin is a terminal."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

__all__ = ["keys_are_read", "on_keys"]


def keys_are_read() -> bool:
    """Tell whether key presses can be read: there is a terminal, and a way to read single keys of it."""
    return sys.platform != "win32" and sys.stdin is not None and sys.stdin.isatty()


@contextmanager
def on_keys(actions: Mapping[str, Callable[[], None]]) -> Iterator[None]:
    """Call what belongs to a key when it is pressed; does nothing where stdin is no terminal.

    Ctrl-C stays what it is. The terminal is given back as it was.
    """
    if sys.platform == "win32" or not keys_are_read():
        yield
        return
    import termios  # noqa: PLC0415 (not on Windows)
    import tty  # noqa: PLC0415 (as above)

    loop, file = asyncio.get_running_loop(), sys.stdin.fileno()

    def read() -> None:
        pressed = os.read(file, 64)
        if not pressed:
            loop.remove_reader(file)
        for key in pressed.decode("ascii", "replace"):
            if (action := actions.get(key.lower())) is not None:
                action()

    before = termios.tcgetattr(file)
    tty.setcbreak(file)
    loop.add_reader(file, read)
    try:
        yield
    finally:
        loop.remove_reader(file)
        termios.tcsetattr(file, termios.TCSADRAIN, before)
