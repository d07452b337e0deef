"""
The types of the events of the catalogue, for programs in Python and in TypeScript, made of its table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from dcm_ws.protocol.catalogue import EVENTS
from dcm_ws.protocol.payloads import Field, Kind, Payload

_PYTHON = {
    Kind.TEXT: "str",
    Kind.TEXT_OR_NULL: "str | None",
    Kind.INTEGER: "int",
    Kind.NUMBER: "float",
    Kind.TEXTS: "list[str]",
    Kind.TRUE: "Literal[True]",
    Kind.ANY: "Any",
}
_TYPESCRIPT = {
    Kind.TEXT: "string",
    Kind.TEXT_OR_NULL: "string | null",
    Kind.INTEGER: "number",
    Kind.NUMBER: "number",
    Kind.TEXTS: "string[]",
    Kind.TRUE: "true",
    Kind.ANY: "unknown",
}

PAYLOADS = tuple(dict.fromkeys(entry.payload for entry in EVENTS))
"""
The payloads in the order of the catalogue.
"""

_BEGIN = "// the catalogue, made by python -m dcm_ws.app.documentation\n"
_END = "// end of the catalogue\n"
_PYTHON_HEAD = '''\
"""
The names of the events of the catalogue, and types of their data, for programs that are type-checked::

    async for event in client.events("task.*"):
        if is_event(event, "task.completed"):
            print(event.data.get("id"))

C{python -m dcm_ws.app.documentation} makes this module of the tables in C{dcm_ws/protocol}: do not change it here.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Literal, TypedDict, TypeGuard, overload

from dcm_ws.client.events import Event
'''

_PYTHON_END = '''\
def is_event(event: Event, pattern: str) -> bool:
    """
    True if the name of the event matches C{pattern}.  A type checker then knows its data.

    @param pattern: a name of the catalogue, or C{task.*} for all events of a family.
    """
    return fnmatchcase(event.event, pattern)
'''


def python_module() -> str:
    """
    The text of the module C{dcm_ws.client.catalogue}.
    """
    parts = [_python_class(payload) for payload in PAYLOADS]
    for names, data in _names():
        alias = f"{data[0].removesuffix('Data')}Event" if len(data) == 1 else ""
        listed = "".join(f'    "{name}",\n' for name in names)
        if alias:
            parts.append(f"{alias} = Literal[\n{listed}]\n")
        wanted = alias or f"Literal[{', '.join(map(_quoted, names))}]"
        parts.append(
            f"@overload\ndef is_event(event: Event, pattern: {wanted}) -> TypeGuard[Event[{' | '.join(data)}]]: ...\n"
        )
    # overloads have to follow each other
    parts.sort(key=lambda part: part.startswith("@overload"))
    return "\n\n".join([_PYTHON_HEAD, *parts, _PYTHON_END])


def _python_class(payload: Payload) -> str:
    total = "" if payload.exact else ", total=False"
    fields = "".join(f"    {field.name}: {_python_type(field)}\n" for field in payload.fields)
    docstring = f'    """\n    {_epytext(payload.meaning)}\n    """\n'
    return f"class {payload.name}(TypedDict{total}):\n{docstring}\n{fields}"


def _python_type(field: Field) -> str:
    return f"Literal[{', '.join(map(_quoted, field.words))}]" if field.words else _PYTHON[field.kind]


def _names() -> Iterator[tuple[list[str], list[str]]]:
    """
    Names and patterns of events, with the types of their data: first each type by itself, then families with several.
    """
    families: dict[str, list[str]] = {}
    for entry in EVENTS:
        families.setdefault(entry.name.partition(".")[0], []).append(entry.payload.name)
    for payload in PAYLOADS:
        names = [entry.name for entry in EVENTS if entry.payload is payload]
        names += [f"{family}.*" for family, data in families.items() if set(data) == {payload.name}]
        yield names, [payload.name]
    for family, data in families.items():
        if len(set(data)) > 1:
            yield [f"{family}.*"], list(dict.fromkeys(data))


def with_types(text: str) -> str:
    """
    The text of C{dcm-ws.d.ts} with the types of the catalogue as it is now.
    """
    return _with_made(text, f"\n{_typescript()}\n")


def with_names(text: str) -> str:
    """
    The text of the page's C{publish.js} with the names of the catalogue as it is now.
    """
    names = "".join(f"  {_quoted(entry.name)},\n" for entry in EVENTS)
    return _with_made(text, f"const CATALOGUE = [\n{names}];\n")


def _with_made(text: str, made: str) -> str:
    before, _, rest = text.partition(_BEGIN)
    return f"{before}{_BEGIN}{made}{_END}{rest.partition(_END)[2]}"


def _typescript() -> str:
    interfaces = (_typescript_interface(payload) for payload in PAYLOADS)
    entries = "".join(
        f"  /** {_jsdoc(entry.when)} */\n  {_quoted(entry.name)}: {entry.payload.name};\n" for entry in EVENTS
    )
    about = "/** The events of the catalogue, and their data.  Declare your own events in it. */\n"
    return "\n".join([*interfaces, f"{about}export interface EventMap {{\n{entries}}}"])


def _typescript_interface(payload: Payload) -> str:
    optional = "" if payload.exact else "?"
    fields = "".join(
        f"  /** {_jsdoc(field.meaning)} */\n  {field.name}{optional}: {_typescript_type(field)};\n"
        for field in payload.fields
    )
    others = "" if payload.exact else "  /** What other publishers send. */\n  [field: string]: unknown;\n"
    return f"/** {payload.meaning} */\nexport interface {payload.name} {{\n{fields}{others}}}\n"


def _typescript_type(field: Field) -> str:
    return " | ".join(map(_quoted, field.words)) or _TYPESCRIPT[field.kind]


def _quoted(text: str) -> str:
    return f'"{text}"'


def _epytext(text: str) -> str:
    return re.sub("`([^`]*)`", r"C{\1}", text)


def _jsdoc(text: str) -> str:
    return text[0].upper() + text[1:] + "." if text[0] != "`" else text + "."
