"""Writes the SDK's types, domain clients and streams from the server's schema, so that they cannot drift.

``make generate`` writes them; a test writes them elsewhere and compares. What a generator cannot know
(names that users expect, properties for convenience) is in :mod:`tools.sdk_names`. The workflow domain is
written by hand and compared with the schema by another test.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import graphql
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLType,
    GraphQLUnionType,
)

from tools.sdk_names import DOMAINS, EXTRAS, LENIENT, MODULES, NAMES, STREAMS, Stream

# Nothing is imported of the packages: what is generated must not be needed to generate it.
ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "circuit_breaker_sdk"
SCHEMA_FILES = ROOT / "src" / "circuit_breaker_server" / "schema"
SCHEMA = graphql.build_schema("\n".join(f.read_text("utf-8") for f in sorted(SCHEMA_FILES.glob("*.graphql"))))
HEADER = "# Written by tools/generate_sdk.py from the server's schema: change that, then `make generate`.\n"
SCALARS = {
    "String": "str",
    "ID": "str",
    "Int": "int",
    "Float": "float",
    "Boolean": "bool",
    "DateTime": "datetime",
}
_TIME = re.compile(r"[a-z]+At|timestamp|lastCheck|lastUpdated|natsTimestamp")
_WIDTH = 110
_LEVELS = 3  # of a type inside itself that a document selects


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def python_name(name: str) -> str:
    """Name the class of a type of the schema."""
    if name in NAMES:
        return NAMES[name]
    name = name.removesuffix("GQL")
    return re.sub(r"^(Llm|Mcp)", lambda found: found[0].upper(), name)


def named(type_: GraphQLType) -> graphql.GraphQLNamedType:
    """Return what a type is of, without lists and exclamation marks."""
    return graphql.get_named_type(type_)


def root_fields(kind: str) -> Mapping[str, GraphQLField]:
    """Return the root fields of ``Query``, ``Mutation`` or ``Subscription``."""
    root = SCHEMA.type_map[kind]
    if not isinstance(root, GraphQLObjectType):
        raise TypeError(f"the schema's {kind} is no object")
    fields: Mapping[str, GraphQLField] = root.fields
    return fields


def input_type(argument: graphql.GraphQLArgument) -> GraphQLInputObjectType:
    """Return the type of an argument ``input``."""
    type_ = named(argument.type)
    if not isinstance(type_, GraphQLInputObjectType):
        raise TypeError(f"an argument input is of {type_.name}, which is no input")
    return type_


def is_json(type_: GraphQLType) -> bool:
    return named(type_).name == "JSON"


def is_many(type_: GraphQLType) -> bool:
    return isinstance(type_.of_type if isinstance(type_, GraphQLNonNull) else type_, GraphQLList)


def annotation(name: str, type_: GraphQLType, *, given: bool = False) -> str:
    """Return the annotation of a value; ``given``: of an input."""
    optional = not isinstance(type_, GraphQLNonNull)
    if isinstance(type_, GraphQLNonNull):
        type_ = type_.of_type
    if isinstance(type_, GraphQLList):
        inner = annotation(name, type_.of_type, given=given)
        text = f"Sequence[{inner}]" if given else f"tuple[{inner}, ...]"
    elif is_json(type_):
        return "JSONInput" if given else "JSON"
    else:
        kind = named(type_).name
        text = SCALARS.get(kind) or python_name(kind)
        if kind == "String" and _TIME.fullmatch(name) and not given:
            text = "datetime"
    return f"{text} | None" if optional else text


def prose(text: str | None) -> str:
    """Write a description of the schema as a docstring has it."""
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", " ".join((text or "").split()))


def docstring(text: str, lines: Sequence[tuple[str, str]] = (), *, indent: int = 4, after: str = "") -> str:
    """Write a docstring: a sentence, then a line for each named thing, then what comes after them."""
    pad, width = " " * indent, _WIDTH - indent
    found = re.match(r"(.+?[.…])(?: (.*))?$", text if text.endswith((".", "…")) else text + ".")
    sentence, rest = (found[1], found[2] or "") if found else (text, "")
    parts = ["\n".join(textwrap.wrap(sentence, width - 6))]
    if rest:
        parts.append(textwrap.fill(rest, width))
    if lines:
        told = (textwrap.fill(f":ivar {n}: {said}", width, subsequent_indent="    ") for n, said in lines)
        parts.append("\n".join(told))
    if after:
        parts.append(textwrap.dedent(after).strip("\n"))
    whole = '"""' + "\n\n".join(parts)
    end = "\n" if "\n" in whole else ""
    return textwrap.indent(f'{whole}{end}"""\n', pad, lambda line: bool(line.strip()))


# --- what belongs to a domain --------------------------------------------------------------------------


def module_of(domain: str) -> str:
    """Name the module of a domain's types."""
    return MODULES.get(domain, domain)


def definitions(domain: str) -> tuple[list[str], list[str], list[str], list[str]]:
    """Return the types, queries, mutations and subscriptions of a domain, in the order of its file."""
    text = (SCHEMA_FILES / f"{domain}.graphql").read_text("utf-8")
    types: list[str] = []
    roots: dict[str, list[str]] = {"Query": [], "Mutation": [], "Subscription": []}
    for node in graphql.parse(text).definitions:
        if isinstance(node, graphql.ObjectTypeExtensionNode):
            roots[node.name.value] += [field.name.value for field in node.fields or ()]
        elif isinstance(node, graphql.TypeDefinitionNode) and node.name.value not in roots:
            types.append(node.name.value)
    return types, roots["Query"], roots["Mutation"], roots["Subscription"]


def in_order(names: Iterable[str]) -> list[str]:
    """Put types behind those that they are made of; recursion is left as it is, annotations are texts."""
    wanted, done = list(names), []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in done or name in path or name not in wanted:
            return
        type_ = SCHEMA.type_map[name]
        for field in getattr(type_, "fields", {}).values():
            visit(named(field.type).name, (*path, name))
        for member in getattr(type_, "types", ()):
            visit(member.name, (*path, name))
        done.append(name)

    for name in wanted:
        visit(name, ())
    return done


# --- types ---------------------------------------------------------------------------------------------


def write_enum(type_: GraphQLEnumType) -> str:
    values = "".join(f'    {name} = "{name}"\n' + _member_doc(v) for name, v in type_.values.items())
    text = docstring(f"{prose(type_.description)} (``{type_.name}``)".replace(". (", " ("))
    return f"class {python_name(type_.name)}(OpenEnum):\n{text}\n{values}"


def _member_doc(value: graphql.GraphQLEnumValue) -> str:
    return f'    """{prose(value.description)}"""\n' if value.description else ""


def write_object(type_: GraphQLObjectType) -> str:
    name = python_name(type_.name)
    told = [(snake(n), prose(f.description)) for n, f in type_.fields.items() if f.description]
    extra = EXTRAS.get(name)
    summary = f"{prose(type_.description)} (``{type_.name}``)".replace(". (", " (")
    text = docstring(summary, told, after="" if extra is None else extra.example)
    tag = _tag(type_)
    lines, properties = [], []
    fields = sorted(type_.fields.items(), key=lambda item: _has_default(type_.name, *item))
    for field_name, field in fields:
        attribute = snake(field_name)
        if is_json(field.type):
            raw = f'msgspec.field(name="{field_name}", default=_NULL)'
            lines.append(f"    _{attribute}: msgspec.Raw = {raw}\n")
            said = prose(field.description) or f"The ``{field_name}``, decoded on first access."
            properties.append(
                f"\n    @property\n    def {attribute}(self) -> JSON:\n"
                + docstring(said, indent=8)
                + f'        return self._json("_{attribute}")\n'
            )
            continue
        kind = annotation(field_name, field.type)
        if _is_lenient(type_.name, field_name) and not kind.endswith("None"):
            kind += " | None"
        default = ""
        if _has_default(type_.name, field_name, field):
            default = " = ()" if is_many(field.type) and not kind.endswith("None") else " = None"
        alias = _alias(field_name, attribute)
        if alias:
            given = f", default={default.removeprefix(' = ')}" if default else ""
            default = f' = msgspec.field(name="{field_name}"{given})'
        lines.append(f"    {attribute}: {kind}{default}\n")
    body = "".join(lines) + "".join(properties) + ("" if extra is None else "\n" + extra.code)
    return f"class {name}(Event, frozen=True, kw_only=True{tag}):\n{text}\n{body}"


def _alias(field_name: str, attribute: str) -> bool:
    """Tell whether msgspec's camel case of the attribute is not the field's name."""
    head, *rest = attribute.split("_")
    return head + "".join(part.title() for part in rest) != field_name


def _tag(type_: GraphQLObjectType) -> str:
    in_union = any(isinstance(t, GraphQLUnionType) and type_ in t.types for t in SCHEMA.type_map.values())
    return f', tag_field="__typename", tag="{type_.name}"' if in_union else ""


def _is_lenient(type_name: str, field_name: str) -> bool:
    return field_name in LENIENT.get(type_name, ())


def _has_default(type_name: str, field_name: str, field: GraphQLField) -> bool:
    nullable = not isinstance(field.type, GraphQLNonNull)
    return nullable or is_many(field.type) or is_json(field.type) or _is_lenient(type_name, field_name)


def write_input(type_: GraphQLInputObjectType) -> str:
    name = python_name(type_.name)
    told = [(snake(n), prose(f.description)) for n, f in type_.fields.items() if f.description]
    summary = f"{prose(type_.description) or 'An input'} (``{type_.name}``)".replace(". (", " (")
    lines = "".join(
        f"    {snake(n)}: {_given(n, f)}\n"
        for n, f in sorted(type_.fields.items(), key=lambda item: _may_be_left_out(item[1]))
    )
    return f"class {name}(Input, frozen=True, kw_only=True):\n{docstring(summary, told)}\n{lines}"


def _may_be_left_out(field: GraphQLInputField | graphql.GraphQLArgument) -> bool:
    return not isinstance(field.type, GraphQLNonNull) or field.default_value is not graphql.Undefined


def _given(name: str, field: GraphQLInputField | graphql.GraphQLArgument) -> str:
    """Annotate what a caller gives, and its default."""
    kind = annotation(name, field.type, given=True)
    if not _may_be_left_out(field):
        return kind
    optional = kind.removesuffix(" | None")
    none = " | None" if kind.endswith("None") else ""
    return f"{optional} | UnsetType{none} = UNSET"


def write_types(domain: str) -> str:
    types, *_ = definitions(domain)
    parts, exported = [], []
    for name in in_order(types):
        type_ = SCHEMA.type_map[name]
        match type_:
            case GraphQLEnumType():
                parts.append(write_enum(type_))
            case GraphQLObjectType():
                parts.append(write_object(type_))
            case GraphQLInputObjectType():
                if name not in _flattened():
                    parts.append(write_input(type_))
                else:
                    continue
            case GraphQLUnionType():
                members = " | ".join(python_name(member.name) for member in type_.types)
                said = prose(type_.description)
                parts.append(f'{python_name(name)}: TypeAlias = {members}\n"""{said}"""\n')
            case _:
                continue
        exported.append(python_name(name))
    body = "\n\n".join(parts)
    head = f'"""Types of {DOMAINS[domain]}: results, events and inputs."""\n'
    needed = _imports_of_types(domain, body, exported)
    listed = "".join(f'    "{name}",\n' for name in sorted(exported))
    null = '\n_NULL = msgspec.Raw(b"null")\n' if "_NULL" in body else ""
    return f"{HEADER}{head}{needed}\n__all__ = [\n{listed}]\n{null}\n\n{body}"


def _flattened() -> set[str]:
    """Return the inputs whose fields are the arguments of a method."""
    fields = (*root_fields("Query").values(), *root_fields("Mutation").values())
    return {input_type(field.args["input"]).name for field in fields if "input" in field.args}


def _imports_of_types(domain: str, body: str, own: Sequence[str]) -> str:
    lines = ["\nfrom __future__ import annotations\n\n"]
    if "Sequence[" in body:
        lines.append("from collections.abc import Sequence\n")
    if re.search(r"\bdatetime\b", body):
        lines.append("from datetime import datetime\n")
    if "TypeAlias" in body:
        lines.append("from typing import TypeAlias\n")
    lines.append("\n")
    if "msgspec." in body:
        lines.append("import msgspec\n")
    if "UNSET" in body:
        lines.append("from msgspec import UNSET, UnsetType\n")
    lines.append("\n")
    base = [n for n in ("JSON", "Event", "Input", "JSONInput", "OpenEnum") if re.search(rf"\b{n}\b", body)]
    lines.append(f"from circuit_breaker_sdk.events.base import {', '.join(base)}\n")
    lines += _imports_of_domains(body, own, but=domain)
    return "".join(lines)


def _imports_of_domains(body: str, own: Sequence[str] = (), but: str | None = None) -> list[str]:
    """Import the types of domains that a text names."""
    lines = []
    for domain, names in {**exported_types(), "workflows": exported_by_hand("workflows")}.items():
        used = [n for n in names if n not in own and re.search(rf"(?<![\w`.]){n}\b", body)]
        if used and domain != but:
            lines.append(
                f"from circuit_breaker_sdk.events.{module_of(domain)} import {', '.join(sorted(used))}\n"
            )
    return sorted(lines)


def exported_types() -> Mapping[str, list[str]]:
    flattened = _flattened()
    skipped = (graphql.GraphQLScalarType, GraphQLInterfaceType)
    return {
        domain: [
            python_name(name)
            for name in definitions(domain)[0]
            if name not in flattened and not isinstance(SCHEMA.type_map[name], skipped)
        ]
        for domain in DOMAINS
    }


# --- documents -----------------------------------------------------------------------------------------


def selection(type_: GraphQLType, *, depth: int = 0, seen: tuple[str, ...] = ()) -> str:
    """Write what is selected of a type: everything, but of a type inside itself only what must be there."""
    kind = named(type_)
    if isinstance(kind, GraphQLUnionType):
        members = " ".join(
            f"... on {member.name} {selection(member, depth=depth, seen=seen)}" for member in kind.types
        )
        return f"{{ __typename {members} }}"
    if not isinstance(kind, (GraphQLObjectType, GraphQLInterfaceType)):
        return ""
    parts = []
    for name, field in kind.fields.items():
        inner = named(field.type)
        if graphql.is_leaf_type(inner):
            parts.append(name)
        elif seen.count(inner.name) >= _LEVELS or (depth >= 1 and kind.name == "McpServer"):
            # Too deep inside itself, or inside a session: only what the type cannot be without.
            if isinstance(field.type, GraphQLNonNull) and not is_many(field.type):
                parts.append(f"{name} {selection(field.type, depth=depth + 1, seen=(*seen, kind.name))}")
        else:
            parts.append(f"{name} {selection(field.type, depth=depth + 1, seen=(*seen, kind.name))}")
    return "{ " + " ".join(parts) + " }"


def document(kind: str, name: str, field: GraphQLField) -> str:
    """Write an operation with one root field and all of its arguments as variables."""
    operation = name[0].upper() + name[1:]
    variables = ", ".join(f"${argument}: {a.type}" for argument, a in field.args.items())
    arguments = ", ".join(f"{argument}: ${argument}" for argument in field.args)
    head = f"{kind} {operation}" + (f"({variables})" if variables else "")
    call = name + (f"({arguments})" if arguments else "")
    text = f"{head} {{ {call} {selection(field.type)} }}".replace("  ", " ")
    return "\n".join(textwrap.wrap(text, _WIDTH - 6, break_long_words=False, break_on_hyphens=False))


def constant(name: str) -> str:
    return "_" + snake(name).upper()


# --- clients -------------------------------------------------------------------------------------------


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
                arguments.append((snake(input_name), _given(input_name, f), _may_be_left_out(f)))
                inner.append(f'"{input_name}": {snake(input_name)}')
            variables.append('"input": {' + ", ".join(inner) + "}")
        else:
            arguments.append((snake(argument), _given(argument, a), _may_be_left_out(a)))
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
        textwrap.fill(f":param {n}: {said}", _WIDTH - 8, subsequent_indent="    ") for n, said in told
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
    imports += _imports_of_domains(body)
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
    parameters = ", ".join(f"{snake(a)}: str | None = None" for a in field.args)
    passed = ", ".join(f"{snake(a)}={snake(a)}" for a in field.args)
    module = f"{stream.domain}_streams"
    text = docstring(prose(field.description), indent=8)
    return (
        f"    def {method}(self, *, {parameters}) -> {stream.subscription}Builder:\n{text}"
        f"        return {module}.{snake(name)}(self._manager, {passed})\n"
    )


# --- streams -------------------------------------------------------------------------------------------


def write_streams(domain: str) -> str:
    names = [name for name in definitions(domain)[3] if name in STREAMS]
    fields = root_fields("Subscription")
    exported: list[str] = []
    parts = [
        f'{constant(name)} = """\n{document("subscription", name, fields[name])}\n"""\n' for name in names
    ]
    for name in names:
        stream, field = STREAMS[name], fields[name]
        parts += [_subscription_class(name, stream, field), _builder_class(name, stream, field)]
        parts.append(_factory(name, stream, field))
        exported += [stream.subscription, f"{stream.subscription}Builder", snake(name)]
    body = "\n\n".join(parts)
    listed = "".join(f'    "{name}",\n' for name in sorted(exported))
    typing = ["Self"] if "Self" in body else []
    typing.append("final")
    sub = ["Operation", "Subscription", "SubscriptionBuilder", "SubscriptionManager"]
    bases = sorted({base for base in (STREAMS[n].base for n in names) if base is not None})
    more = "".join(f"from circuit_breaker_sdk.domains.{module} import {name}\n" for module, name in bases)
    imports = (
        "\nfrom __future__ import annotations\n\nfrom collections.abc import Callable\n"
        f"from typing import {', '.join(typing)}\n\n{more}"
        + "".join(_imports_of_domains(body))
        + f"from circuit_breaker_sdk.subscriptions import {', '.join(sub)}\n"
    )
    head = f'"""The streams of {DOMAINS[domain]}: documents, typed subscriptions, builders."""\n'
    return f"{HEADER}{head}{imports}\n__all__ = [\n{listed}]\n\n{body}"


def _subscription_class(name: str, stream: Stream, field: GraphQLField) -> str:
    event = python_name(named(field.type).name)
    base = stream.base[1] if stream.base else f"Subscription[{event}]"
    arguments = ", ".join(f'{snake(a)}="…"' for a in list(field.args)[:1])
    first = stream.handlers[0] if stream.handlers else "on_data"
    example = f"""
        Example::

            stream = await client.subscriptions.{stream.suffix_in_all}({arguments}).subscribe()
            stream.{first}(print)
        """
    text = docstring(f"{stream.said.removesuffix('.')} (``{name}``)", after=example)
    methods = [
        f"    def {handler}(self, handler: Callable[[{event}], object]) -> Self:\n"
        + docstring("Call ``handler`` with each event: ``on_data`` under this stream's name.", indent=8)
        + "        return self.on_data(handler)\n"
        for handler in stream.handlers
    ]
    for method, attribute, what in stream.filters:
        methods.append(
            f"    def {method}(self, {attribute}: str) -> Self:\n"
            + docstring(f"Keep back events of other {what}, from the next event on.", indent=8)
            + f"        return self.filter(lambda event: event.{attribute} == {attribute})\n"
        )
    return f"@final\nclass {stream.subscription}({base}):\n{text}\n" + "\n".join(methods)


def _builder_class(name: str, stream: Stream, field: GraphQLField) -> str:
    event = python_name(named(field.type).name)
    builder = f"{stream.subscription}Builder"
    argument = next(iter(field.args))
    example = f'Example::\n\n    builder.{snake(argument)}("…")'
    text = docstring(f"Arguments of ``{name}``; the server applies them all.", after=example)
    methods = [
        f"    def {snake(a)}(self, {snake(a)}: str) -> Self:\n"
        + docstring(f"Set ``{a}``.", indent=8)
        + f'        return self._with("{a}", {snake(a)})\n'
        for a in field.args
    ]
    base = f"SubscriptionBuilder[{event}, {stream.subscription}]"
    return f"@final\nclass {builder}({base}):\n{text}\n" + "\n".join(methods)


def _factory(name: str, stream: Stream, field: GraphQLField) -> str:
    event, builder = python_name(named(field.type).name), f"{stream.subscription}Builder"
    parameters = ", ".join(f"{snake(a)}: str | None" for a in field.args)
    given = ", ".join(f'"{a}": {snake(a)}' for a in field.args)
    filters = ", ".join(f'"{a}"' for a in field.args if a in stream.filter_arguments)
    pushed = f"        filter_arguments=frozenset({{{filters}}}),\n" if filters else ""
    return (
        f"def {snake(name)}(manager: SubscriptionManager, *, {parameters}) -> {builder}:\n"
        + docstring(f"Make the builder of ``{name}``; ``None`` arguments are not sent.")
        + f"    given = {{{given}}}\n    operation = Operation(\n        document={constant(name)},\n"
        f"        type={event},\n"
        "        variables={name: value for name, value in given.items() if value is not None},\n"
        f'        root_field="{name}",\n{pushed}        label="{name}",\n    )\n'
        f"    return {builder}(manager, operation, {stream.subscription})\n"
    )


def write_consolidated() -> str:
    """Write the client that has all streams."""
    methods = [subscribe_method(name, stream, stream.suffix_in_all) for name, stream in STREAMS.items()]
    modules = sorted({f"{stream.domain}_streams" for stream in STREAMS.values()})
    imports = [f"from circuit_breaker_sdk.domains import {', '.join(modules)}\n"]
    imports += [
        f"from circuit_breaker_sdk.domains.{s.domain}_streams import {s.subscription}Builder\n"
        for s in STREAMS.values()
    ]
    example = """
        Example::

            async for resource in client.subscriptions.resource_updates(resource_id="r-1"):
                print(resource.state)
        """
    text = docstring("The consolidated client; the streams are those of the domain clients.", after=example)
    return (
        f'{HEADER}"""All streams in one place: ``client.subscriptions``."""\n'
        "\nfrom __future__ import annotations\n\nfrom typing import final\n\n"
        f"{''.join(imports)}from circuit_breaker_sdk.subscriptions import SubscriptionManager\n"
        f'\n__all__ = ["SubscriptionClient"]\n\n\n@final\nclass SubscriptionClient:\n{text}\n'
        "    def __init__(self, manager: SubscriptionManager) -> None:\n        self._manager = manager\n\n"
        + "\n".join(methods)
    )


# --- files ---------------------------------------------------------------------------------------------

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


def write_package() -> str:
    """Write what the package of types exports: all of them."""
    base = [name for name in exported_by_hand("base") if name != "Input"]
    generated = {module_of(domain): names for domain, names in exported_types().items()}
    sources = {"base": base, **generated, "workflows": exported_by_hand("workflows")}
    imports = "".join(
        f"    from circuit_breaker_sdk.events.{module} import {', '.join(names)}\n"
        for module, names in sources.items()
    )
    listed = sorted({"UNSET", "UnsetType", *(name for names in sources.values() for name in names)})
    exported = "".join(f'    "{name}",\n' for name in listed)
    places = "".join(f'    "{name}": "{module}",\n' for module, names in sources.items() for name in names)
    said = "Typed events, their enums and the inputs of mutations; a module is loaded when it is used."
    head = f'{HEADER}"""{said}"""\n'
    return (
        f"{head}\nfrom importlib import import_module\nfrom typing import TYPE_CHECKING\n\n"
        f"from msgspec import UNSET, UnsetType\n\nif TYPE_CHECKING:\n{imports}\n"
        f"__all__ = [\n{exported}]\n\n_MODULES = {{\n{places}}}\n\n\n"
        "def __getattr__(name: str) -> object:\n"
        "    module = _MODULES.get(name)\n"
        "    if module is None:\n"
        '        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")\n'
        '    value: object = getattr(import_module(f"{__name__}.{module}"), name)\n'
        "    globals()[name] = value  # found without this function from now on\n"
        "    return value\n"
    )


def exported_by_hand(module: str) -> list[str]:
    """Return what a module of types that is written by hand exports."""
    for node in ast.parse((PACKAGE / "events" / f"{module}.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    raise ValueError(f"events/{module}.py has no __all__")


def files() -> dict[str, str]:
    """Return every generated file by its path in the package."""
    found = {"events/__init__.py": write_package(), "domains/consolidated.py": write_consolidated()}
    for domain in DOMAINS:
        found[f"events/{module_of(domain)}.py"] = write_types(domain)
        if domain in CLIENTS:
            name = f"{domain}_operations" if domain in BASES else domain
            found[f"domains/{name}.py"] = write_client(domain)
        if domain in DOMAINS and any(name in STREAMS for name in definitions(domain)[3]):
            found[f"domains/{domain}_streams.py"] = write_streams(domain)
    return found


def write(package: Path) -> list[Path]:
    """Write all files below a package's folder, formatted; return their paths."""
    paths = []
    for name, text in files().items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    ruff = [sys.executable, "-m", "ruff"]
    for step in (["check", "--quiet", "--fix", "--select", "I,F401,RUF022"], ["format", "--quiet"]):
        config = ["--config", str(ROOT / "pyproject.toml")]
        subprocess.run([*ruff, *step, *config, *map(str, paths)], check=True)  # noqa: S603 (our own files)
    return paths


if __name__ == "__main__":
    write(PACKAGE)
