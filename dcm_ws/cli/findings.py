"""
A line of the report of C{dcm-ws check}.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One line of the report.

    @ivar hint: what to do about it; empty for nothing.
    """

    name: str
    good: bool
    text: str
    hint: str = ""
