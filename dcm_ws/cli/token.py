"""
C{dcm-ws token}: makes and verifies tokens.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import click

from dcm_ws.cli.key_sets import find_keys
from dcm_ws.cli.options import SettingsFiles, json_option, settings_options
from dcm_ws.cli.settings import find_secrets
from dcm_ws.protocol.channels import IDENTIFIER_RULE, is_identifier
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.notifications import END_MS
from dcm_ws.protocol.scopes import check_scopes
from dcm_ws.protocol.tokens import Claims, sign
from dcm_ws.protocol.web_tokens import KeySet, is_web_token, sign_web_token, verify_any_token

TTL_MAX = 366 * 86_400
"""
The longest time that a token is made for, in seconds.
"""

_Scopes = tuple[str, ...] | None
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_EXPIRED = 3
_INPUT_MAX = 65_536


def _seconds(ctx: click.Context, parameter: click.Parameter, value: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", value)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 1 <= seconds <= TTL_MAX:
        raise click.BadParameter(f"must be a time such as 90s, 15m, 1h or 7d, and at most 366d, not {value!r}")
    return seconds


def _scopes(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> _Scopes:
    try:
        check_scopes(values)
    except ValueError as error:
        raise click.BadParameter(f"{error}") from None
    return values or None


@click.command("token")
@click.argument("agent", required=False)
@click.option("--session", metavar="ID", help="The DCM session that the token is for.")
@click.option(
    "--ttl",
    metavar="TIME",
    default="1h",
    show_default=True,
    callback=_seconds,
    help="How long the token is valid, such as 90s, 15m, 1h or 7d; at most 366d.",
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    callback=_scopes,
    help="Limit the token to subscribe:CHANNEL or publish:CHANNEL:EVENT, in which * stands for any characters but /;"
    " or make it an operator's with operator. Repeatable. Without it, the token has the rights of an agent.",
)
@click.option("--jwt", is_flag=True, help="Make a JSON Web Token, signed with HS256.")
@click.option("--verify", "given", metavar="TOKEN|-", help="Verify this token, or with - the one on standard input.")
@json_option
@settings_options
def command(
    agent: str | None,
    session: str | None,
    ttl: int,
    scopes: _Scopes,
    jwt: bool,
    given: str | None,
    as_json: bool,
    files: SettingsFiles,
) -> None:
    """
    Make a token for AGENT, or verify one.  The secret is that of the service: it comes from WS_AUTH_SECRET, a secret
    file or the TOML file.  JSON Web Tokens that are signed with a key are verified with those of --jwks in the TOML
    file; neither audience nor issuer is checked.

    Exit codes: 0 made, or valid; 1 invalid, or the secret cannot be read; 2 invalid usage; 3 expired.

    \b
    Examples:
      dcm-ws token backend
      dcm-ws token ci --scope "publish:topics/builds:task.*" --scope subscribe:global
      DCM_WS_TOKEN=$(dcm-ws token backend --ttl 15m) dcm-ws tail
      dcm-ws token backend --jwt
      dcm-ws token --verify - < token.txt
    """
    for name, text in (("AGENT", agent), ("--session", session)):
        if text is not None and not is_identifier(text):
            raise click.UsageError(f"{name} must be {IDENTIFIER_RULE}, not {text!r}")
    if agent is not None and given is None:
        _make(find_secrets(files)[0], agent, session, ttl * 1000, scopes, as_json, sign_web_token if jwt else sign)
    elif given is not None and agent is None:
        _verify(find_secrets(files), given, as_json, files)
    else:
        raise click.UsageError("give either an AGENT or --verify TOKEN")


def _make(
    secret: str,
    agent: str,
    session: str | None,
    ttl_ms: int,
    scopes: _Scopes,
    as_json: bool,
    sign: Callable[[str, str, str | None, int, int, _Scopes], str],
) -> None:
    now_ms = _now_ms()
    token = sign(secret, agent, session, now_ms, ttl_ms, scopes)
    click.echo(json.dumps({"token": token, "expires_at": now_ms + ttl_ms}) if as_json else token)


def _verify(secrets: tuple[str, ...], given: str, as_json: bool, files: SettingsFiles) -> None:
    token = sys.stdin.read(_INPUT_MAX).strip() if given == "-" else given
    claims = _verified(secrets, find_keys(files) if is_web_token(token) else KeySet(), token)
    if as_json:
        shown: dict[str, object] = {
            "agent_id": claims.agent_id,
            "session_id": claims.session_id,
            "expires_at": claims.expires_at,
            "scope": None if claims.scope is None else list(claims.scope.texts),
        }
        click.echo(json.dumps(shown))
    else:
        click.echo(_sentence(claims))


def _verified(secrets: tuple[str, ...], keys: KeySet, token: str) -> Claims:
    try:
        return verify_any_token(token, secrets, keys, _now_ms())
    except ProtocolError as error:
        if error.code is ErrorCode.TOKEN_EXPIRED:
            click.echo("expired: get a new token", err=True)
            raise SystemExit(_EXPIRED) from None
        _, _, reason = error.reason.partition(": ")
        click.echo(f"invalid: {reason or 'not a token, or signed with another secret or key'}", err=True)
        raise SystemExit(1) from None


def _sentence(claims: Claims) -> str:
    # Python has no later date
    until = datetime.fromtimestamp(min(claims.expires_at, END_MS - 1) / 1000, UTC).isoformat(timespec="seconds")
    session = f", session {claims.session_id}" if claims.session_id else ""
    scope = "" if claims.scope is None else f", scope {' '.join(claims.scope.texts) or 'empty'}"
    return f"valid: agent {claims.agent_id}{session}{scope}, until {until}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
