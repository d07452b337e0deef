"""
The public keys that the service accepts tokens of, for commands.
"""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import click

from dcm_ws.app.settings import SettingsError
from dcm_ws.cli.options import SettingsFiles
from dcm_ws.cli.settings import parse_options
from dcm_ws.http.jwks import MAX_BYTES, TIMEOUT, check_source, is_url
from dcm_ws.protocol.web_tokens import KeySet, read_keys


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **others: Any) -> None:
        return None


def find_keys(files: SettingsFiles) -> KeySet:
    """
    Return the keys that C{serve} would use; none if it would use none.

    @raise click.ClickException: they cannot be read.
    """
    try:
        source = parse_options(files).sources().given.get("jwks")
        if not source:
            return KeySet()
        check_source(str(source))
        return read_keys(_read(str(source)))
    except (OSError, ValueError) as error:
        reason = error if isinstance(error, SettingsError) else f"the keys of --jwks cannot be read: {error}"
        raise click.ClickException(str(reason)) from None


def _read(source: str) -> bytes:
    if is_url(source):
        with urllib.request.build_opener(_NoRedirects).open(source, timeout=TIMEOUT) as response:
            text: bytes = response.read(MAX_BYTES + 1)
    else:
        with Path(source).open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return text
