"""
The kinds of values that settings have: how each is written, read and checked.

What is wrong with a value is a C{ValueError} whose text follows the name of the setting: C{must be 1 or more, not 0}.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_MANY = 1e9
_SUBJECT = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """
    Any text; the base of the other kinds.

    @ivar is_path: it is the path of a file or a folder; in a TOML file, it is relative to that file.
    @ivar unit: of its numbers; empty if they have none.
    """

    is_path: bool = False
    unit: str = ""

    def read(self, text: str) -> Any:
        """
        The value that a text from the command line, the environment or a file means.

        @raise ValueError: there is no such value.
        """
        return text

    def check(self, value: Any) -> None:
        """
        Check a value, which may also come from another application.

        @raise ValueError: it is invalid.
        """

    def written(self, value: Any) -> str:
        """
        The text that means the value.
        """
        return str(value)

    def spoken(self, value: Any) -> str:
        """
        The value with its unit, for C{--help}.
        """
        return self.written(value)

    def described(self, value: Any) -> str:
        """
        The value with its unit, in Markdown.
        """
        return f"`{self.written(value)}`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject(Kind):
    """
    The first parts of a NATS subject.
    """

    def check(self, value: Any) -> None:
        if _SUBJECT.match(value) is None:
            raise ValueError(f"must be letters, digits, - and _, perhaps with dots between them, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged(Kind):
    """
    A text with rules of its own.

    @ivar judge: raises C{ValueError} if the text is invalid.
    """

    judge: Callable[[str], object]

    def check(self, value: Any) -> None:
        self.judge(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole(Kind):
    """
    A whole number.

    @ivar lowest: and C{highest}: the bounds; no upper bound if it is None.
    @ivar zero: what 0 means, in words; empty if 0 is an ordinary number.
    """

    lowest: int = 1
    highest: int | None = None
    zero: str = ""

    def read(self, text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"must be a whole number, not {text!r}") from None

    def check(self, value: Any) -> None:
        _check_bounds(value, self.lowest, self.highest)

    def spoken(self, value: Any) -> str:
        if not value and self.zero:
            return self.zero
        return f"{value} {self.unit}".rstrip()

    def described(self, value: Any) -> str:
        if not value and self.zero:
            return self.zero
        return f"{value:,} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Port(Whole):
    """
    The number of a TCP port.
    """

    highest: int | None = 65_535

    def described(self, value: Any) -> str:
        return f"`{value}`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers(Whole):
    """
    A number of processes, or C{auto}, which is 0.
    """

    lowest: int = 0
    highest: int | None = 64

    def read(self, text: str) -> int:
        if text == "auto":
            return 0
        value = Whole.read(self, text)
        # 0 would be no workers, to people
        _check_bounds(value, 1, self.highest)
        return value

    def written(self, value: Any) -> str:
        return str(value) if value else "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds(Kind):
    """
    A time.
    """

    unit: str = "seconds"
    lowest: float = 0.001
    highest: float = 86_400.0

    def read(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise ValueError(f"must be a number of seconds, not {text!r}")
        return value

    def check(self, value: Any) -> None:
        _check_bounds(value, self.lowest, self.highest, " seconds")

    def written(self, value: Any) -> str:
        return f"{value:g}"

    def spoken(self, value: Any) -> str:
        return f"{value:g} seconds"

    def described(self, value: Any) -> str:
        return f"{value:g} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate(Kind):
    """
    Messages a second, of C{100/s}, C{6000/m}, C{100} or C{off}; 0 for no limit.
    """

    def read(self, text: str) -> float:
        if text == "off":
            return 0.0
        number, slash, unit = text.partition("/")
        try:
            return float(number) / {"s": 1, "m": 60}[unit if slash else "s"]
        except (ValueError, KeyError):
            raise ValueError(f"must be a rate such as 100/s or 6000/m, or off, not {text!r}") from None

    def check(self, value: Any) -> None:
        _check_bounds(value, 0, _MANY)

    def written(self, value: Any) -> str:
        return f"{value:g}/s" if value else "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRate(Kind):
    """
    Bytes a second, or C{off}; 0 for no limit.
    """

    unit: str = "bytes"

    def read(self, text: str) -> float:
        return 0.0 if text == "off" else float(Whole().read(text))

    def check(self, value: Any) -> None:
        _check_bounds(value, 0, _MANY)

    def written(self, value: Any) -> str:
        return f"{value:.0f}" if value else "off"

    def spoken(self, value: Any) -> str:
        return f"{value:.0f} bytes" if value else "off"

    def described(self, value: Any) -> str:
        return f"{value:,.0f} bytes" if value else "`off`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Kind):
    """
    One of a few words.

    @ivar any_case: upper and lower case are the same.
    """

    words: tuple[str, ...]
    any_case: bool = False

    @property
    def text(self) -> str:
        """
        The words, in Markdown.
        """
        *most, last = (f"`{word}`" for word in self.words)
        return f"{', '.join(most)} or {last}"

    def read(self, text: str) -> Any:
        word = text.lower() if self.any_case else text
        self.check(word)
        return word

    def check(self, value: Any) -> None:
        if value not in self.words:
            raise ValueError(f"must be one of {', '.join(self.words)}, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch(Choice):
    """
    One of two words, for on and off.

    @ivar on: the word for on.
    """

    on: str

    def read(self, text: str) -> bool:
        return bool(Choice.read(self, text) == self.on)

    def check(self, value: Any) -> None:
        if isinstance(value, str):
            Choice.check(self, value)

    def written(self, value: Any) -> str:
        return next(word for word in self.words if (word == self.on) == bool(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag(Kind):
    """
    On or off: an option without a value, true or false in a file.

    @ivar given: the value of the field if it is on.
    """

    given: bool = True

    def read(self, text: str) -> bool:
        return self.given

    def described(self, value: Any) -> str:
        return "on" if value == self.given else "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Several(Kind):
    """
    A list of texts: an option that may be repeated.

    @ivar judge: raises C{ValueError}, with a sentence, if the list is invalid.
    """

    judge: Callable[[tuple[str, ...]], object] = len

    def check(self, value: Any) -> None:
        self.judge(value)

    def written(self, value: Any) -> str:
        return ", ".join(value)

    def described(self, value: Any) -> str:
        return ", ".join(f"`{one}`" for one in value) or "none"


def _check_bounds(value: Any, lowest: float, highest: float | None, unit: str = "") -> None:
    if not isinstance(value, int | float):
        raise ValueError(f"must be a number, not {value!r}")
    if lowest <= value and (highest is None or value <= highest):
        return
    number = f"{value:g}" if isinstance(value, float) else str(value)
    if highest is None:
        raise ValueError(f"must be {lowest:g} or more{unit}, not {number}")
    raise ValueError(f"must be from {lowest:.15g} to {highest:.15g}{unit}, not {number}")
