"""A domain's client: a method for each query, mutation and stream."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

from graphql import GraphQLField, GraphQLNonNull

from scripts.sdk.documents import constant, document
from scripts.sdk.names import DOMAINS, STREAMS, Stream
from scripts.sdk.schema import annotation, definitions, imports_of_domains, input_type, root_fields, snake
from scripts.sdk.texts import HEADER, WIDTH, docstring, prose
from scripts.sdk.types import given_type, may_be_left_out

__all__ = ["BASES", "CLIENTS", "subscribe_method", "write_client"]

CLIENTS: Mapping[str, tuple[str, str]] = {
    "agents": ("AgentsClient", "agents"),
    "llm": ("LLMOperations", "llm"),
    "analytics": ("AnalyticsClient", "analytics"),
    "mcp": ("MCPClient", "mcp"),
    "rules": ("RulesClient", "rules"),
    "nats": ("NATSClient", "nats"),
}
NAMED_BY_DOMAIN = {"llm", "mcp"}
"""Domains whose fields have the domain in their names: a method of the domain's client need not say it."""

BASES = {"llm"}
"""Domains whose client is written by hand on top of the generated one."""


def write_method(name: str, field: GraphQLField, *, dropped: str | None) -> str:
    words = [word for word in snake(name).split("_") if word != dropped]
    method, pad = "_".join(words), " " * 8
    arguments: list[tuple[str, str, bool]] = []
    variables: list[str] = []
    for argument, a in field.args.items():
        if argument == "input":
            type_ = input_type(a)
            inner = []
            for input_name, f in type_.fields.items():
                arguments.append((snake(input_name), given_type(input_name, f), may_be_left_out(f)))
                inner.append(f'"{input_name}": {snake(input_name)}')
            variables.append('"input": {' + ", ".join(inner) + "}")
        else:
            arguments.append((snake(argument), given_type(argument, a), may_be_left_out(a)))
            variables.append(f'"{argument}": {snake(argument)}')
    arguments.sort(key=lambda each: each[2])
    signature = ", ".join(f"{n}: {t}" for n, t, _ in arguments)
    returned = annotation(name, field.type).replace("tuple[", "list[", 1).replace(", ...]", "]", 1)
    optional = returned.endswith(" | None")
    inner_type = returned.removesuffix(" | None")
    call = "optional" if optional else "field"
    told = _argument_lines(field)
    operation = name[0].upper() + name[1:]
    star = "self, *, " if arguments else "self"
    lines = f"    async def {method}({star}{signature}) -> {returned}:\n"
    lines += docstring(prose(field.description), indent=8, after=told)
    lines += f"{pad}variables: dict[str, object] = {{{', '.join(variables)}}}\n" if variables else ""
    given = ", variables" if variables else ""
    lines += (
        f"{pad}return await self._executor.{call}(\n"
        f'{pad}    {constant(name)}{given}, type={inner_type}, operation_name="{operation}"\n{pad})\n'
    )
    return lines


def _argument_lines(field: GraphQLField) -> str:
    """Say what is known of the arguments."""
    told = []
    for argument, a in field.args.items():
        if argument == "input":
            type_ = input_type(a)
            told += [(snake(n), prose(f.description)) for n, f in type_.fields.items() if f.description]
        elif a.description:
            told.append((snake(argument), prose(a.description)))
    return "\n".join(
        textwrap.fill(f":param {n}: {said}", WIDTH - 8, subsequent_indent="    ") for n, said in told
    )


def write_client(domain: str) -> str:
    _, queries, mutations, subscriptions = definitions(domain)
    class_name, word = CLIENTS[domain]
    documents, methods = [], []
    for kind, names in (("Query", queries), ("Mutation", mutations)):
        for name in names:
            field = root_fields(kind)[name]
            documents.append(f'{constant(name)} = """\n{document(kind.lower(), name, field)}\n"""\n')
            methods.append(write_method(name, field, dropped=domain if domain in NAMED_BY_DOMAIN else None))
    streams = [name for name in subscriptions if name in STREAMS]
    methods += [
        subscribe_method(name, STREAMS[name], f"subscribe_{STREAMS[name].suffix}") for name in streams
    ]
    body = "\n".join(documents) + "\n\n" + _client_class(domain, class_name, methods, bool(streams))
    head = f'"""The domain of {DOMAINS[domain]}: ``client.{word}``."""\n'
    imports = ["\nfrom __future__ import annotations\n\n"]
    if "Sequence[" in body:
        imports.append("from collections.abc import Sequence\n")
    imports.append("from typing import final\n\n" if domain not in BASES else "\n")
    if "UNSET" in body:
        imports.append("from msgspec import UNSET, UnsetType\n\n")
    if streams:
        imports.append(f"from circuit_breaker_sdk.domains import {domain}_streams\n")
        builders = sorted(STREAMS[name].subscription + "Builder" for name in streams)
        imports.append(f"from circuit_breaker_sdk.domains.{domain}_streams import {', '.join(builders)}\n")
    imports.append("from circuit_breaker_sdk.domains.execution import Executor\n")
    if re.search(r"\bJSONInput\b", body):
        imports.append("from circuit_breaker_sdk.events.base import JSONInput\n")
    imports += imports_of_domains(body)
    if streams:
        imports.append("from circuit_breaker_sdk.subscriptions import SubscriptionManager\n")
    return f'{HEADER}{head}{"".join(imports)}\n__all__ = ["{class_name}"]\n\n{body}'


def _client_class(domain: str, class_name: str, methods: Sequence[str], has_streams: bool) -> str:
    manager = ", manager: SubscriptionManager" if has_streams else ""
    keep = "        self._manager = manager\n" if has_streams else ""
    final = "" if domain in BASES else "@final\n"
    said = (
        f"Queries, mutations and streams of {DOMAINS[domain]}. What is left ``UNSET`` is not sent; ``None`` "
        "is null. Every query and mutation raises ``OperationError`` where the server answers with errors "
        "(see its ``code``), and ``ConnectionFailed`` and its kin where no answer came: then a mutation was "
        "executed whole or not at all."
    )
    text = (
        f"{final}class {class_name}:\n{docstring(said)}\n"
        f"    def __init__(self, executor: Executor{manager}) -> None:\n"
        f"        self._executor = executor\n{keep}\n"
    )
    return text + "\n".join(methods)


def subscribe_method(name: str, stream: Stream, method: str) -> str:
    field = root_fields("Subscription")[name]
    each = [f"{snake(a)}: str | None = None" for a in field.args]
    # The argument that a stream needs is mostly its only one: it may be positional.
    first = 1 if isinstance(next(iter(field.args.values())).type, GraphQLNonNull) else 0
    parameters = ", ".join([*each[:first], *(["*"] if each[first:] else []), *each[first:]])
    passed = ", ".join(f"{snake(a)}={snake(a)}" for a in field.args)
    module = f"{stream.domain}_streams"
    text = docstring(prose(field.description), indent=8)
    return (
        f"    def {method}(self, {parameters}) -> {stream.subscription}Builder:\n{text}"
        f"        return {module}.{snake(name)}(self._manager, {passed})\n"
    )
