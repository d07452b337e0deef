"""
The scripts of the pages: a module with all that it imports, as one file.

A browser asks for all modules of a page at once, and a proxy that speaks HTTP/2 opens as many connections to the
service (docs/decisions/0048-one-script-per-page.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from posixpath import dirname, join, normpath
from typing import NamedTuple

# the forms that the modules of the pages use, each on one line; what is exported in them never changes, so an import
# may copy it
_import = re.compile(r'import \{ ([\w$]+(?:, [\w$]+)*) \} from "(\.[\w./-]+)";')
_export = re.compile(r"export ((?:const|class|function|async function) ([\w$]+).*)")


class BundleError(Exception):
    """
    A module cannot be bundled.  The text names it.
    """


class _Module(NamedTuple):
    """
    @ivar lines: its text, without C{import} and C{export}.
    @ivar imports: names by the path of the module that exports them.
    """

    lines: list[str]
    imports: dict[str, list[str]]
    exports: list[str]


def bundle(entry: str, read: Callable[[str], str]) -> str:
    """
    Make one script of a module and all that it imports.

    Each imported module becomes a function that runs once and returns what it exports, so that its other names stay
    its own.  The entry comes last and outside of any function: it may use C{await}.

    @param entry: the path of the module.
    @param read: returns the text of a module, given its path.
    @raise BundleError: a module imports or exports in a form that is not supported, imports itself over others, or
        imports what is not exported.
    """
    modules: dict[str, _Module] = {}
    waiting = [entry]
    while waiting:
        path = waiting.pop()
        if path not in modules:
            modules[path] = _parse(path, read(path))
            waiting += modules[path].imports
    script = ["const modules = {};"]
    try:
        for path in TopologicalSorter({path: module.imports for path, module in modules.items()}).static_order():
            script += _lines(path, modules, is_entry=path == entry)
    except CycleError as error:
        raise BundleError(f"modules import each other: {', '.join(error.args[1])}") from None
    return "\n".join([*script, ""])


def _parse(path: str, text: str) -> _Module:
    module = _Module([], {}, [])
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith(("import", "export")):
            module.lines.append(line)
        elif found := _import.fullmatch(line):
            module.imports[normpath(join(dirname(path), found[2]))] = found[1].split(", ")
        elif found := _export.fullmatch(line):
            module.lines.append(found[1])
            module.exports.append(found[2])
        else:
            raise BundleError(f"{path}, line {number}: this form of import or export is not supported: {line}")
    return module


def _lines(path: str, modules: dict[str, _Module], *, is_entry: bool) -> list[str]:
    """
    A module as it is in the script.
    """
    module = modules[path]
    lines = []
    for source, names in module.imports.items():
        if missing := set(names).difference(modules[source].exports):
            raise BundleError(f"{path}: {source} does not export {', '.join(sorted(missing))}")
        lines.append(f'const {{ {", ".join(names)} }} = modules["{source}"];')
    lines += module.lines
    if is_entry:
        return [f"// {path}", *lines]
    return [f'modules["{path}"] = (() => {{', *lines, f"return {{ {', '.join(module.exports)} }};", "})();"]
