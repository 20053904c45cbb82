"""Exit codes of the command line, and the errors that lead to each."""

from __future__ import annotations

import enum

from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    CircuitBreakerError,
    ConnectionFailed,
    OperationError,
    OperationTimeoutError,
    RateLimitExceeded,
    SubscriptionFailed,
    UsageError,
)

__all__ = ["ExitCode", "exit_code_of", "help_end"]


class ExitCode(enum.IntEnum):
    """The exit statuses of ``circuit-breaker``; the same number means the same in every command."""

    OK = 0
    VERDICT = 1
    USAGE = 2
    UNREACHABLE = 3
    UNAUTHENTICATED = 4
    REFUSED = 5
    LOST = 6
    SILENT = 7
    FAIL_STOP = 8
    INTERRUPTED = 130


_EXIT_CODES_HELP = (
    "Exit status: 0 done; 1 `demo` or `cluster` found an event lost, duplicated or reordered, or an "
    "operation without events, a policy is not valid, the audit log is not as it was written, or `doctor` "
    "found something wrong; 2 wrong usage; "
    "3 no connection, or the server could not start, or its files cannot be used; 4 not authenticated; "
    "5 the operation was refused; 6 the stream broke after it was live; 7 no event within --wait; "
    "8 the server stopped, or did not start, because a record of its event log could not be applied, or "
    "another server has taken this node's name; "
    "130 interrupted."
)


def help_end(page: str) -> str:
    """Return the end of a command's help: the page about it, and the exit statuses.

    :param page: a file in docs/.
    """
    return f"docs/{page} tells more.\n\n{_EXIT_CODES_HELP}"


def exit_code_of(error: CircuitBreakerError, *, live: bool) -> ExitCode:
    """Tell the exit status for an error.

    :param live: whether the stream had been live before; a connection that fails then was lost, and one
        that fails before could not be made.
    """
    match error:
        case UsageError():
            return ExitCode.USAGE
        case AuthenticationFailed():
            return ExitCode.UNAUTHENTICATED
        case OperationError() | SubscriptionFailed() | RateLimitExceeded():
            return ExitCode.REFUSED
        case ConnectionFailed() | OperationTimeoutError() if not live:
            return ExitCode.UNREACHABLE
        case _:
            return ExitCode.LOST
