"""The streams of a domain, and the client that has all streams."""

from __future__ import annotations

from graphql import GraphQLField

from scripts.sdk.clients import subscribe_method
from scripts.sdk.documents import constant, document
from scripts.sdk.names import DOMAINS, STREAMS, Stream
from scripts.sdk.schema import definitions, imports_of_domains, named, python_name, root_fields, snake
from scripts.sdk.texts import HEADER, docstring

__all__ = ["write_consolidated", "write_streams"]


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
        + "".join(imports_of_domains(body))
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
