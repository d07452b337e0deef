"""
The output of workers, passed on to the log of their supervisor.
"""

from __future__ import annotations

from collections.abc import Callable

_LONGEST = 1 << 16


class Lines:
    """
    Puts lines together from the pieces in which a process writes them, and passes on those that are complete.

    @param relay: called with one line or several.
    """

    def __init__(self, relay: Callable[[str], object]) -> None:
        self._relay = relay
        self._pieces: dict[int, bytes] = {}

    def received(self, descriptor: int, data: bytes) -> None:
        """
        Take what has been written to a descriptor.
        """
        data = self._pieces.pop(descriptor, b"") + data
        whole, _, rest = data.rpartition(b"\n")
        if len(rest) > _LONGEST:
            whole, rest = data, b""
        if rest:
            self._pieces[descriptor] = rest
        if whole:
            self._pass_on(whole)

    def end(self) -> None:
        """
        Pass on what was not complete.
        """
        pieces, self._pieces = self._pieces, {}
        for piece in pieces.values():
            self._pass_on(piece)

    def _pass_on(self, data: bytes) -> None:
        self._relay(data.decode(errors="backslashreplace") + "\n")
