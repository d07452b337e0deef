"""
Makes imports cheaper: puts off what takes long and hardly any command needs, and spares collections of garbage.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def defer(name: str) -> None:
    """
    Import a module when one of its attributes is first used.  Nothing happens if it has been imported.

    @param name: of a module in a package.
    """
    if name in sys.modules:
        return
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)

    def load(attribute: str) -> Any:
        if sys.modules.get(name) is module:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    # PEP 562
    module.__getattr__ = load  # type: ignore[method-assign]
    sys.modules[name] = module
    package, _, short = name.rpartition(".")
    setattr(importlib.import_module(package), short, module)


@contextmanager
def spare_collections() -> Iterator[None]:
    """
    Collect no garbage within a C{with} statement that imports: what is made there stays, so there is none.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        # nor is it looked at later
        gc.freeze()
