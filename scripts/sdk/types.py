"""The types of a domain: events, enums, inputs."""

from __future__ import annotations

import re
from collections.abc import Sequence

import graphql
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLUnionType,
)

from scripts.sdk.names import DOMAINS, EXTRAS, LENIENT, UNLIMITED
from scripts.sdk.schema import (
    SCHEMA,
    annotation,
    definitions,
    flattened,
    imports_of_domains,
    in_order,
    is_json,
    is_many,
    python_name,
    snake,
)
from scripts.sdk.texts import HEADER, docstring, prose

__all__ = ["given_type", "may_be_left_out", "write_types"]


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
        is_optional = _is_lenient(type_.name, field_name) or field_name in UNLIMITED.get(type_.name, ())
        if is_optional and not kind.endswith("None"):
            kind += " | None"
        default = ""
        if _has_default(type_.name, field_name, field):
            default = " = ()" if is_many(field.type) and not kind.endswith("None") else " = None"
        alias = _alias(field_name, attribute)
        if alias:
            given = f", default={default.removeprefix(' = ')}" if default else ""
            default = f' = msgspec.field(name="{field_name}"{given})'
        lines.append(f"    {attribute}: {kind}{default}\n")
    if type_.name in UNLIMITED:
        properties.append(_without_limits([snake(field_name) for field_name in UNLIMITED[type_.name]]))
    body = "".join(lines) + "".join(properties) + ("" if extra is None else "\n" + extra.code)
    return f"class {name}(Event, frozen=True, kw_only=True{tag}):\n{text}\n{body}"


def _without_limits(attributes: list[str]) -> str:
    lines = "".join(
        f"        if self.{attribute} == sys.float_info.max:\n"
        f'            msgspec.structs.force_setattr(self, "{attribute}", None)\n'
        for attribute in attributes
    )
    return f"\n    def __post_init__(self) -> None:\n{lines}"


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
        f"    {snake(n)}: {given_type(n, f)}\n"
        for n, f in sorted(type_.fields.items(), key=lambda item: may_be_left_out(item[1]))
    )
    return f"class {name}(Input, frozen=True, kw_only=True):\n{docstring(summary, told)}\n{lines}"


def may_be_left_out(field: GraphQLInputField | graphql.GraphQLArgument) -> bool:
    return not isinstance(field.type, GraphQLNonNull) or field.default_value is not graphql.Undefined


def given_type(name: str, field: GraphQLInputField | graphql.GraphQLArgument) -> str:
    """Annotate what a caller gives, and its default."""
    kind = annotation(name, field.type, given=True)
    if not may_be_left_out(field):
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
                if name not in flattened():
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


def _imports_of_types(domain: str, body: str, own: Sequence[str]) -> str:
    lines = ["\nfrom __future__ import annotations\n\n"]
    if "sys." in body:
        lines.append("import sys\n")
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
    lines += imports_of_domains(body, own, but=domain)
    return "".join(lines)
