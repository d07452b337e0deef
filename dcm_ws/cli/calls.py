"""
HTTP calls of the service, for commands.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import click

from dcm_ws.cli.options import ServerOptions
from dcm_ws.cli.terminal import harmless
from dcm_ws.cli.top_report import ANSWER_MAX, ERRORS, explain, open_url

_SECONDS = 15.0


def call(options: ServerOptions, method: str, path: str) -> dict[str, Any]:
    """
    Make a call, and return the object that it answers.

    @param path: with the query, percent-encoded.
    @raise click.ClickException: it fails; the text says why.
    """
    base, server = options.http_base(), options.server()
    request = urllib.request.Request(base + path, method=method)
    try:
        with open_url(request, server, _SECONDS) as response:
            found = _parsed(response.read(ANSWER_MAX))
    except urllib.error.HTTPError as error:
        reason = _parsed(error.read(ANSWER_MAX)).get("error")
        shown = harmless(reason) if isinstance(reason, str) else f"{error.code} {error.reason}"
        raise click.ClickException(shown) from None
    except ERRORS as error:
        raise click.ClickException(explain(base, error)) from None
    return found


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}
