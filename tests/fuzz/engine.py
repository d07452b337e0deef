"""
The fuzzer's own process: libFuzzer, through atheris, ends it when it is done.

What it sees is the Python side: the bytecode and the string comparisons of this project.  msgspec is C, compiled
without instrumentation; of its branches the fuzzer learns nothing but what the second opinion in C{oracle} makes of an
input.  Atheris' hook for regular expressions stays off: it breaks patterns that are matched from a position.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-untyped]

import tests.fakes  # noqa: F401 - for all that it imports, Twisted above all, which is not to be instrumented

# but this project is, so it is imported again
for name in [name for name in sys.modules if name.startswith("dcm_ws")]:
    del sys.modules[name]
del sys.modules["tests.fakes"]

atheris.enabled_hooks.add("str")
with atheris.instrument_imports(include=["dcm_ws", "tests.fuzz.targets", "tests.fuzz.oracle"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.mutator import mutate  # noqa: E402 - not to be instrumented


def main() -> None:
    """
    Fuzz the target that the first argument names, with libFuzzer's options for the others.
    """
    target = TARGETS[sys.argv.pop(1)]

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        return mutate(data, max_size, seed, atheris.Mutate)

    atheris.Setup(sys.argv, target, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
