"""
Makes the HTTP calls of C{/v1}.
"""

from __future__ import annotations

from twisted.web.resource import IResource

from dcm_ws.core.assembly import Core
from dcm_ws.http.api import Gate


def make_calls(core: Core, gate: Gate) -> dict[bytes, IResource]:
    """
    All calls, each under its path.
    """
    return {}
