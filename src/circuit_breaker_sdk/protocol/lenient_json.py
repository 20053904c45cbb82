"""Read JSON that holds what no JSON value may: lone surrogates, NaN, numbers out of range.

It serves to find which operation such a message belongs to, and to say what is wrong with it.
"""

from __future__ import annotations

import json
from typing import Final

from circuit_breaker_sdk.protocol.json_depth import check_depth

__all__ = ["json_defect", "read_leniently"]

_MAX_INTEGER_DIGITS: Final = 400
# Python's decoder reads what ours refuses inside a payload: lone surrogates, NaN, numbers out of range.
_lenient: Final = json.JSONDecoder(
    parse_int=lambda digits: int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else float(digits)
)


def read_leniently(data: bytes) -> object:
    """Read JSON that may hold lone surrogates, NaN and numbers out of range: to find whose they are.

    :raises ValueError: it is not even that.
    :raises RecursionError: it is nested too deep.
    """
    check_depth(data)
    return _lenient.decode(data.decode())


def json_defect(data: bytes) -> str | None:
    """Say what a JSON text holds that JSON's grammar allows, or nearly, and that is no value; or ``None``."""
    try:
        value = read_leniently(data)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return "a string holds one half of a surrogate pair"
    except RecursionError:
        return "it is nested too deep"
    except UnicodeDecodeError:
        return "it is not UTF-8"
    except json.JSONDecodeError:
        return None
    except ValueError:
        return "NaN, Infinity or a number out of range"
    return None
