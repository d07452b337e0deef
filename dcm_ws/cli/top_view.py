"""
What the user of C{dcm-ws top} has chosen to see, with keys.
"""

from __future__ import annotations

import re

from dcm_ws.cli.top_lists import KINDS, Kind, Order

_SEQUENCES = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1bOH": "home",
    b"\x1b[1~": "home",
    b"\x1b[7~": "home",
    b"\x1b[F": "end",
    b"\x1bOF": "end",
    b"\x1b[4~": "end",
    b"\x1b[8~": "end",
    b"\x1b[Z": "back tab",
    b"\t": "tab",
}
"""
The keys that terminals send as more than one character, and those that have a name.
"""
_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|\x1b(?=[^\[O])|[^\x1b]", re.S)
_BEGINNING = re.compile(rb"\x1b(?:[\[O][0-9;]{0,16})?\Z")


def keys_of(data: bytes) -> tuple[list[str], bytes]:
    """
    The keys that were pressed, by their names.

    @param data: what the terminal sent.
    @return: also the beginning of a key, whose rest has not come yet.
    """
    rest = beginning[0] if (beginning := _BEGINNING.search(data)) else b""
    found = _KEY.findall(data.removesuffix(rest))
    return [_SEQUENCES.get(key, key.decode("latin-1")) for key in found], rest


class View:
    """
    Which list is shown, in which order, and from which row on.

    @ivar first: the number of the first row that is shown.
    """

    def __init__(self) -> None:
        self._at = 0
        self._orders: list[Order | None] = [kind.usual for kind in KINDS]
        self._page = 1
        self.first = 0

    @property
    def kind(self) -> Kind:
        return KINDS[self._at]

    @property
    def next_kind(self) -> Kind:
        """
        What Tab shows.
        """
        return KINDS[(self._at + 1) % len(KINDS)]

    @property
    def order(self) -> Order | None:
        return self._orders[self._at]

    def fit(self, rows: int, page: int) -> None:
        """
        Have the first row such that the page is full, if there are enough rows.

        @param page: how many rows are shown at once.
        """
        self._page = max(1, page)
        self.first = max(0, min(self.first, rows - self._page))

    def press(self, key: str) -> None:
        """
        Do what a key stands for; others do nothing.
        """
        if key in ("tab", "back tab"):
            self._at = (self._at + (1 if key == "tab" else -1)) % len(KINDS)
            self.first = 0
        elif key in ("up", "down"):
            self.first += 1 if key == "down" else -1
        elif key in ("page up", "page down"):
            self.first += self._page if key == "page down" else -self._page
        elif key == "home":
            self.first = 0
        elif key == "end":
            # it is made smaller when the rows are known
            self.first = 1 << 30
        else:
            self._sort(key)

    def _sort(self, key: str) -> None:
        """
        Sort by the column with this key; if it is sorted by it, the other way round, and then as usual.
        """
        for number, column in enumerate(self.kind.columns):
            if column.key == key:
                now = self.order
                if now is None or now.column != number:
                    self._orders[self._at] = Order(number)
                else:
                    self._orders[self._at] = self.kind.usual if now.is_reversed else Order(number, True)
                self.first = 0
