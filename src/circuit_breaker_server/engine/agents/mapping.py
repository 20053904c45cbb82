"""Map a resource to the input of a run, and its output to the resource's data; fill in the prompts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from circuit_breaker_server.engine.agents.inputs import Prompts
from circuit_breaker_server.engine.llm.inputs import ChatMessage

__all__ = ["map_input", "map_output", "output_of", "render"]

_PLACEHOLDER = re.compile(r"\{(\w+)\}")

JSONObject = Mapping[str, object]


def map_input(
    mapping: Mapping[str, str],
    *,
    id: str,  # noqa: A002 (the path's name)
    state: str,
    data: JSONObject,
    metadata: JSONObject,
) -> dict[str, object]:
    """Return a run's input: by key what a path leads to in the resource, null where it leads nowhere."""

    def value_at(path: str) -> object:
        place, _, key = path.partition(".")
        match place:
            case "data" if key:
                return data.get(key)
            case "metadata" if key:
                return metadata.get(key)
            case "id" if not key:
                return id
            case "state" if not key:
                return state
            case _:
                return None

    return {name: value_at(path) for name, path in mapping.items()}


def output_of(content: str) -> dict[str, object]:
    """Return a run's output: the whole answer, and what it says where it is a JSON object."""
    try:
        said = msgspec.json.decode(content, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError):
        said = None
    return {"content": content, "output": said}


def map_output(mapping: Mapping[str, str], output: JSONObject) -> dict[str, object]:
    """Return what a run adds to the resource's data; a path that leads nowhere gives null."""
    said = output["output"]
    inner: JSONObject = said if isinstance(said, dict) else {}
    return {
        name: output["content"] if path == "content" else inner.get(path.removeprefix("output."))
        for name, path in mapping.items()
    }


def render(prompts: Prompts, given: JSONObject, missing: Callable[[str], object]) -> tuple[ChatMessage, ...]:
    """Fill in the prompts; ``missing`` is called with each placeholder for which the input has no key."""

    def fill(text: str) -> str:
        def value_of(found: re.Match[str]) -> str:
            name = found[1]
            if name not in given:
                missing(name)
                return ""
            value = given[name]
            return value if isinstance(value, str) else msgspec.json.encode(value).decode()

        return _PLACEHOLDER.sub(value_of, text)

    system = "\n\n".join(fill(text) for text in (prompts.system, prompts.context_instructions) if text)
    user = ChatMessage(role="user", content=fill(prompts.user_template))
    return (ChatMessage(role="system", content=system), user) if system else (user,)
