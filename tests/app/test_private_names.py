"""
What other projects keep private is used in one module for each project.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from twisted.web.http import Request

ROOT = Path(__file__).parents[2]

USERS = {
    "autobahn": "websocket/autobahn.py",
    "twisted": "http/transport.py",
    "txpostgres": "postgres/connection.py",
}
"""
By project, the module that may use its private names.
"""

# documented by Python, despite the underscore
DOCUMENTED = {"_asdict", "_exit", "_fields", "_make", "_replace"}

# what stands for the object that a method belongs to
SELF = {"self", "cls", "super()", "type(self)"}

MODULES = sorted(
    path.relative_to(ROOT / "dcm_ws").as_posix() for path in (ROOT / "dcm_ws").rglob("*.py") if path.stem != "__init__"
)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def is_self(node: ast.Attribute) -> bool:
    return ast.unparse(node.value) == "self"


def project(module: str) -> str:
    return module.partition(".")[0]


@cache
def shared_names(package: str) -> frozenset[str]:
    """
    The private names of the classes of one of our packages, which its modules may use of each other.
    """
    names = set()
    for path in (ROOT / "dcm_ws" / package).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.ClassDef):
                # the attributes of the class
                names.update(
                    name.id
                    for statement in node.body
                    if isinstance(statement, ast.Assign | ast.AnnAssign)
                    for name in ast.walk(statement)
                    if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
                )
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node):
                names.add(node.attr)
    return frozenset(filter(is_private, names))


@cache
def private_names(cls: type) -> frozenset[str]:
    """
    The private names that a class of another project gives its instances, by its source.
    """
    names = set(vars(cls))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):
        tree = ast.Module([], [])
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            names.add(node.attr)
    return frozenset(filter(is_private, names))


def inherited(module: ModuleType, besides: str | None) -> dict[str, dict[str, type]]:
    """
    For each class of a module, the private names that it inherits from other projects, and from which class.

    @param besides: a project whose private names the module may use.
    """
    return {
        cls.__name__: {
            name: base
            for base in reversed(cls.__mro__)
            if project(base.__module__) not in ("dcm_ws", "builtins", "typing", "enum", "abc", besides)
            for name in private_names(base)
        }
        for cls in vars(module).values()
        if isinstance(cls, type) and cls.__module__ == module.__name__
    }


def uses_in_class(cls: ast.ClassDef, theirs: dict[str, type]) -> Iterator[str]:
    """
    Uses of inherited private names in the body of a class.
    """
    for node in ast.walk(cls):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name = node.name
        elif isinstance(node, ast.Attribute) and node.attr in theirs and ast.unparse(node.value) in SELF:
            name = node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        else:
            continue
        if name in theirs:
            yield f"line {node.lineno}: {theirs[name].__module__}.{theirs[name].__qualname__}.{name}"


def uses_of_others(tree: ast.Module, ours: frozenset[str], besides: str | None) -> Iterator[str]:
    """
    Uses of private names of objects other than C{self}, of private modules, and changes of what others import, too.
    """
    foreign = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            origin, names = node.module or "", [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            origin, names = node.names[0].name, []
        else:
            continue
        if project(origin) not in ("dcm_ws", "__future__", besides):
            foreign |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            yield from (
                f"line {node.lineno}: import of {name}" for name in (*origin.split("."), *names) if is_private(name)
            )
    allowed = DOCUMENTED | ours
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not (is_private(node.attr) or isinstance(node.ctx, ast.Store)):
            continue
        owner = ast.unparse(node.value)
        known = node.attr in allowed or (besides is not None and owner not in foreign)
        if is_private(node.attr) and owner not in SELF and not known:
            yield f"line {node.lineno}: {owner}.{node.attr}"
        elif isinstance(node.ctx, ast.Store) and project(owner) in foreign - {"sys"} and "(" not in owner:
            yield f"line {node.lineno}: {owner}.{node.attr} is changed for everyone"


@pytest.mark.parametrize("name", MODULES)
def test_private_names_are_used_in_one_place(name: str) -> None:
    """
    What another project keeps private may change with any of its versions, so it is used in one module.
    """
    besides = next((project for project, module in USERS.items() if module == name), None)
    tree = ast.parse((ROOT / "dcm_ws" / name).read_text())
    found = list(uses_of_others(tree, shared_names(name.partition("/")[0]), besides))
    theirs = inherited(importlib.import_module("dcm_ws." + name.removesuffix(".py").replace("/", ".")), besides)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found += uses_in_class(node, theirs.get(node.name, {}))
    assert not found, (
        f"dcm_ws/{name} uses what another project keeps private; the modules for that are {USERS}:\n" + "\n".join(found)
    )


def test_private_names_are_found() -> None:
    """
    The check above finds each kind of use.
    """
    tree = ast.parse(
        "from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory\n"
        "import twisted.internet.task\n"
        "class Site(twisted.web.server.Request):\n"
        "    _log = None\n"
        "    def f(self, transport):\n"
        "        self._cleanup(transport._tempDataBuffer, self._mine)\n"
        "twisted.internet.task.Clock = None\n"
    )
    assert list(uses_of_others(tree, frozenset(), None)) == [
        "line 1: import of _wrapper",
        "line 7: twisted.internet.task.Clock is changed for everyone",
        "line 6: transport._tempDataBuffer",
    ]
    site = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    theirs: dict[str, type] = dict.fromkeys(private_names(Request), Request)
    assert sorted(uses_in_class(site, theirs)) == [
        "line 4: twisted.web.http.Request._log",
        "line 6: twisted.web.http.Request._cleanup",
    ]
