"""
The names that log lines carry, which operators filter by: they do not change when code moves to another module.
"""

from __future__ import annotations

import ast
from pathlib import Path

import dcm_ws

NAMES = {
    "dcm_ws.agents",
    "dcm_ws.bus",
    "dcm_ws.cluster",
    "dcm_ws.embedded.EmbeddedPostgres",
    "dcm_ws.jwks",
    "dcm_ws.kpis.KpiPoller",
    "dcm_ws.listener.NotifyListener",
    "dcm_ws.log",
    "dcm_ws.mcp",
    "dcm_ws.owners",
    "dcm_ws.service.DCMService",
    "dcm_ws.strict_http",
    "dcm_ws.tap",
    "dcm_ws.timers",
    "dcm_ws.websocket.WebSocketConnection",
    "dcm_ws.workers",
}


def names_in(source: str) -> set[str]:
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    loggers = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Logger"]
    return {
        ast.literal_eval(keyword.value)
        for logger in loggers
        for keyword in (logger.keywords or [ast.keyword("namespace", ast.Constant("without a name"))])
        if keyword.arg == "namespace"
    }


def test_names_of_loggers() -> None:
    """
    Each logger of the service has one of these names, whatever the module is called that it is in.
    """
    package = Path(dcm_ws.__file__).parent
    files = set(package.rglob("*.py")) - set((package / "client").rglob("*.py"))
    assert set().union(*(names_in(file.read_text()) for file in files)) == NAMES
