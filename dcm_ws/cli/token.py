"""
C{dcm-ws token}.
"""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import UTC, datetime

import click

from dcm_ws.cli.common import config_option, secrets_of
from dcm_ws.protocol.channels import IDENTIFIER_RULE, is_identifier
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.notifications import END_MS
from dcm_ws.protocol.tokens import OPERATOR, Claims, check_scope, sign, verify

TTL_MAX = 366 * 86_400
"""
Seconds that a token may be good for.
"""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_EXPIRED = 3


def _seconds(ctx: click.Context, parameter: click.Parameter, value: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", value)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 1 <= seconds <= TTL_MAX:
        raise click.BadParameter(f"must be such as 90s, 15m, 1h or 7d, and at most 366d, not {value!r}")
    return seconds


@click.command("token")
@click.argument("agent", required=False)
@click.option("--session", metavar="ID", help="The DCM session that the token is for.")
@click.option(
    "--ttl", default="1h", show_default=True, callback=_seconds, help="How long it is valid: 90s, 15m, 1h, 7d."
)
@click.option(
    "--scope",
    type=click.Choice([OPERATOR]),
    help="operator: it may also publish system.*, metric.*, agent.connected and agent.disconnected in production.",
)
@click.option("--verify", "given", metavar="TOKEN|-", help="Verify a token, or the one on standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
def command(
    agent: str | None,
    session: str | None,
    ttl: int,
    scope: str | None,
    given: str | None,
    as_json: bool,
    config: str | None,
) -> None:
    """
    Make a token for AGENT with the service's own secret, which WS_AUTH_SECRET, a secret file or the TOML file gives.

    Exit codes: 0 made, or valid; 1 invalid, or it failed; 2 invalid usage; 3 expired.

    \b
    Examples:
      dcm-ws token backend
      DCM_WS_TOKEN=$(dcm-ws token backend --ttl 15m) dcm-ws tail
      dcm-ws token --verify - < token.txt
    """
    if (agent is None) == (given is None):
        raise click.UsageError("give either an AGENT or --verify TOKEN")
    for name, text in (("AGENT", agent), ("--session", session)):
        if text is not None and not is_identifier(text):
            raise click.UsageError(f"{name} must be {IDENTIFIER_RULE}, not {text!r}")
    secrets = secrets_of(config)
    now_ms = time.time_ns() // 1_000_000
    if agent is not None:
        token = sign(secrets[0], agent, session, now_ms, ttl * 1000, (scope,) if scope else ())
        click.echo(json.dumps({"token": token, "expires_at": now_ms + ttl * 1000}) if as_json else token)
        return
    assert given is not None
    if given == "-":
        given = sys.stdin.read(65_536).strip()
    claims = _verified(secrets, given, now_ms)
    try:
        check_scope(claims)
    except ProtocolError as error:
        click.echo(f"invalid: {error.reason}", err=True)
        raise SystemExit(1) from None
    if as_json:
        click.echo(
            json.dumps(
                {
                    "agent_id": claims.agent_id,
                    "session_id": claims.session_id,
                    "expires_at": claims.expires_at,
                    "scope": [OPERATOR] if claims.operator else None,
                }
            )
        )
    else:
        # Python knows no later time
        until = datetime.fromtimestamp(min(claims.expires_at, END_MS - 1) / 1000, UTC).isoformat(timespec="seconds")
        of_session = f", session {claims.session_id}" if claims.session_id else ""
        scope = ", operator" if claims.operator else ""
        click.echo(f"good: agent {claims.agent_id}{of_session}{scope}, until {until}")


def _verified(secrets: tuple[str, ...], token: str, now_ms: int) -> Claims:
    for secret in secrets:
        try:
            return verify(secret, token, now_ms)
        except ProtocolError as error:
            if error.code is ErrorCode.TOKEN_EXPIRED:
                click.echo("expired: get a new token", err=True)
                raise SystemExit(_EXPIRED) from None
    click.echo("invalid: not a token, or signed with another secret", err=True)
    raise SystemExit(1)
