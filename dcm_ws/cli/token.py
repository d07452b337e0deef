"""
C{dcm-ws token}: makes and verifies tokens.
"""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import UTC, datetime

import click

from dcm_ws.cli.options import SettingsFiles, json_option, settings_options
from dcm_ws.cli.settings import find_secrets
from dcm_ws.protocol.channels import IDENTIFIER_RULE, is_identifier
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.notifications import END_MS
from dcm_ws.protocol.tokens import OPERATOR, Claims, check_scope, sign, verify

TTL_MAX = 366 * 86_400
"""
The longest time that a token is made for, in seconds.
"""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_EXPIRED = 3
_INPUT_MAX = 65_536


def _seconds(ctx: click.Context, parameter: click.Parameter, value: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", value)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 1 <= seconds <= TTL_MAX:
        raise click.BadParameter(f"must be a time such as 90s, 15m, 1h or 7d, and at most 366d, not {value!r}")
    return seconds


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
    type=click.Choice([OPERATOR]),
    help="operator: in production the token also allows publishing system.*, metric.*, agent.connected and"
    " agent.disconnected.",
)
@click.option("--verify", "given", metavar="TOKEN|-", help="Verify this token, or with - the one on standard input.")
@json_option
@settings_options
def command(
    agent: str | None,
    session: str | None,
    ttl: int,
    scope: str | None,
    given: str | None,
    as_json: bool,
    files: SettingsFiles,
) -> None:
    """
    Make a token for AGENT, or verify one.  The secret is that of the service: it comes from WS_AUTH_SECRET, a secret
    file or the TOML file.

    Exit codes: 0 made, or valid; 1 invalid, or the secret cannot be read; 2 invalid usage; 3 expired.

    \b
    Examples:
      dcm-ws token backend
      DCM_WS_TOKEN=$(dcm-ws token backend --ttl 15m) dcm-ws tail
      dcm-ws token --verify - < token.txt
    """
    for name, text in (("AGENT", agent), ("--session", session)):
        if text is not None and not is_identifier(text):
            raise click.UsageError(f"{name} must be {IDENTIFIER_RULE}, not {text!r}")
    if agent is not None and given is None:
        _make(find_secrets(files)[0], agent, session, ttl * 1000, (scope,) if scope else (), as_json)
    elif given is not None and agent is None:
        _verify(find_secrets(files), given, as_json)
    else:
        raise click.UsageError("give either an AGENT or --verify TOKEN")


def _make(secret: str, agent: str, session: str | None, ttl_ms: int, scope: tuple[str, ...], as_json: bool) -> None:
    now_ms = _now_ms()
    token = sign(secret, agent, session, now_ms, ttl_ms, scope)
    click.echo(json.dumps({"token": token, "expires_at": now_ms + ttl_ms}) if as_json else token)


def _verify(secrets: tuple[str, ...], given: str, as_json: bool) -> None:
    token = sys.stdin.read(_INPUT_MAX).strip() if given == "-" else given
    claims = _verified(secrets, token)
    try:
        check_scope(claims)
    except ProtocolError as error:
        click.echo(f"invalid: {error.reason}", err=True)
        raise SystemExit(1) from None
    if as_json:
        shown: dict[str, object] = {
            "agent_id": claims.agent_id,
            "session_id": claims.session_id,
            "expires_at": claims.expires_at,
            "scope": [OPERATOR] if claims.operator else None,
        }
        click.echo(json.dumps(shown))
    else:
        click.echo(_sentence(claims))


def _verified(secrets: tuple[str, ...], token: str) -> Claims:
    now_ms = _now_ms()
    for secret in secrets:
        try:
            return verify(secret, token, now_ms)
        except ProtocolError as error:
            if error.code is ErrorCode.TOKEN_EXPIRED:
                click.echo("expired: get a new token", err=True)
                raise SystemExit(_EXPIRED) from None
    click.echo("invalid: not a token, or signed with another secret", err=True)
    raise SystemExit(1)


def _sentence(claims: Claims) -> str:
    # Python has no later date
    until = datetime.fromtimestamp(min(claims.expires_at, END_MS - 1) / 1000, UTC).isoformat(timespec="seconds")
    session = f", session {claims.session_id}" if claims.session_id else ""
    scope = ", operator" if claims.operator else ""
    return f"valid: agent {claims.agent_id}{session}{scope}, until {until}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
