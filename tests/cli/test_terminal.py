"""
What commands print.
"""

from __future__ import annotations

import json

import pytest

from dcm_ws.cli.terminal import harmless, json_line

pytestmark = pytest.mark.integration


def test_escaping() -> None:
    """
    Every control character is escaped, and other text is unchanged.
    """
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x2028, 0xD800):
        assert harmless(chr(code)).isascii() and harmless(chr(code)).isprintable(), code
    assert harmless("Grüße, 世界 \U0001f600") == "Grüße, 世界 \U0001f600"
    assert json.loads(json_line("\x7f\x9b")) == "\x7f\x9b" and json_line("\x7f\x9b").isprintable()
