"""
Names of agents, sessions and topics for tests: those that real installations use, those that break careless code, and
those that no name may be.
"""

from __future__ import annotations

from hypothesis import strategies as st

NAMES = [
    *("a", "Z", "0", "_", ".", "..", ":", "@", "-", "backend-laravel", "user@host:1.2_3", "x" * 128),
    *("general purpose", "team/lead", "équipe", "a  b", "/", "//", "/a", "a/", "a//b", "agents/a", "日本語", "日 本"),
    *(
        '"',
        "'",
        "\\",
        '\\"',
        "<script>alert(1)</script>",
        "&amp;",
        "%",
        "%00",
        "%2F",
        "{agent}",
        "$1",
        "*",
        "#",
        "?",
        "`",
    ),
    *(
        "\N{GRINNING FACE}",
        "\N{GRINNING FACE}" * 128,
        "\N{ROCKET}/\N{ROCKET}",
        "e\N{COMBINING ACUTE ACCENT}",
        "\ue000",
        "null",
    ),
    *(
        "a\N{IDEOGRAPHIC SPACE}b",
        "a\N{NO-BREAK SPACE}b",
        "; drop table tasks; --",
        "__proto__",
        "-1",
        "0x1",
        "a,b",
        "a=b",
    ),
]

NOT_NAMES = [
    *(
        "",
        " ",
        "  ",
        "x" * 129,
        "é" * 129,
        "\N{GRINNING FACE}" * 129,
        " a",
        "a ",
        "\N{NO-BREAK SPACE}a",
        "a\N{IDEOGRAPHIC SPACE}",
    ),
    *(
        "a\n",
        "\na",
        "a\nb",
        "a\0",
        "\t",
        "a\rb",
        "\x1b[31m",
        "\x7f",
        "\x85",
        "a\x9fb",
        "\N{LINE SEPARATOR}",
        "a\N{PARAGRAPH SEPARATOR}b",
    ),
    *("\N{ZERO WIDTH SPACE}", "a\N{RIGHT-TO-LEFT OVERRIDE}b", "\N{SOFT HYPHEN}", "a\N{ZERO WIDTH JOINER}b", "\ufeffa"),
    *("\ud800", "a\udfffb", "\uffff", "\U0010ffff", "\u0378", "\N{NO-BREAK SPACE}"),
]

_inner = st.characters(exclude_categories=["Cc", "Cf", "Cs", "Cn", "Zl", "Zp"])
_ends = st.characters(exclude_categories=["Cc", "Cf", "Cs", "Cn", "Z"])

names = _ends | st.builds("{}{}{}".format, _ends, st.text(_inner, max_size=126), _ends)
"""
All names that there are.
"""
