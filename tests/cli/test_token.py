"""
dcm-ws token.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from dcm_ws.app.settings import DEFAULT_SECRET
from dcm_ws.protocol.tokens import sign, verify
from tests.cli.running import run
from tests.integration.tokens import SECRET, make_token
from tests.protocol.web_tokens import key_set, private_key, public_jwk, sign_web_token


def test_a_token_is_all_that_is_printed(tmp_path: Path) -> None:
    """
    Standard output has only the token, which is valid for the given time.
    """
    before = time.time_ns() // 1_000_000
    done = run(tmp_path, "token", "backend", "--session", "s1", "--ttl", "15m", WS_AUTH_SECRET=SECRET)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    claims = verify(SECRET, done.stdout.strip(), before)
    assert (claims.agent_id, claims.session_id) == ("backend", "s1")
    assert 900_000 <= claims.expires_at - before <= 930_000


def test_the_secret_is_found_as_the_service_finds_it(tmp_path: Path) -> None:
    """
    The secret is the one that the service uses, in production too, and no database is needed.
    """
    (tmp_path / "secrets").write_text(f"{SECRET}\nan-older-one\n")
    (tmp_path / "dcm-ws.toml").write_text('ws-auth-secret-file = "secrets"\nproduction = true\n')
    token = run(tmp_path, "token", "a").stdout.strip()
    assert verify(SECRET, token, 0).agent_id == "a"
    older = make_token("b", secret="an-older-one")
    assert "agent b" in run(tmp_path, "token", "--verify", older).stdout


def test_operators_token(tmp_path: Path) -> None:
    """
    C{--scope operator} makes an operator's token, which C{--verify} shows.
    """
    token = run(tmp_path, "token", "ops", "--scope", "operator", WS_AUTH_SECRET=SECRET).stdout.strip()
    scope = verify(SECRET, token, 0).scope
    assert scope is not None and scope.operator
    assert "operator" in run(tmp_path, "token", "--verify", token, WS_AUTH_SECRET=SECRET).stdout
    told = run(tmp_path, "token", "--verify", token, "--json", WS_AUTH_SECRET=SECRET).stdout
    assert json.loads(told)["scope"] == ["operator"]


def test_scopes(tmp_path: Path) -> None:
    """
    A token may have several scopes, which C{--verify} shows; invalid ones are named.
    """
    scopes = ["subscribe:topics/a*", "publish:global:task.*"]
    options = [word for scope in scopes for word in ("--scope", scope)]
    token = run(tmp_path, "token", "ci", *options, WS_AUTH_SECRET=SECRET).stdout.strip()
    read = verify(SECRET, token, 0).scope
    assert read is not None and list(read.texts) == scopes
    assert " ".join(scopes) in run(tmp_path, "token", "--verify", token, WS_AUTH_SECRET=SECRET).stdout
    limited = sign(SECRET, "a", None, time.time_ns() // 1_000_000, scope=("publish:*",))
    done = run(tmp_path, "token", "--verify", limited, WS_AUTH_SECRET=SECRET)
    assert done.returncode == 1 and "publish:*" in done.stderr
    done = run(tmp_path, "token", "ops", "--scope", "publish:*")
    assert done.returncode == 2 and "publish:CHANNEL:EVENT" in done.stderr


def test_json_web_tokens(tmp_path: Path) -> None:
    """
    C{--jwt} makes a JSON Web Token, which C{--verify} accepts, also with a key of the service's key set.
    """
    given = ("token", "ci", "--jwt", "--session", "s", "--ttl", "5m", "--scope", "subscribe:topics/a b")
    token = run(tmp_path, *given).stdout.strip()
    assert token.count(".") == 2
    done = run(tmp_path, "token", "--verify", token, "--json")
    told = json.loads(done.stdout)
    assert (done.stderr, told["agent_id"], told["session_id"]) == ("", "ci", "s")
    assert told["scope"] == ["subscribe:topics/a b"]
    assert 0 < told["expires_at"] - time.time() * 1000 <= 330_000
    (tmp_path / "keys.json").write_bytes(key_set(public_jwk("ES256", "k")))
    (tmp_path / "dcm-ws.toml").write_text('jwks = "keys.json"\n')
    for kid, seconds, status in (("k", 60, 0), ("other", 60, 1), ("k", -60, 3)):
        private = private_key("ES256", kid)
        token = sign_web_token(private, "ES256", int(time.time()) + seconds, header={"kid": "k"})
        done = run(tmp_path, "token", "--verify", token)
        assert done.returncode == status, done
    for content, source in ((b"{}", "keys.json"), (b"", "missing.json"), (b"", "http://192.0.2.1/")):
        (tmp_path / "keys.json").write_bytes(content)
        (tmp_path / "dcm-ws.toml").write_text(f'jwks = "{source}"\n')
        done = run(tmp_path, "token", "--verify", token)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "--jwks" in done.stderr


def test_verify(tmp_path: Path) -> None:
    """
    Valid, invalid and expired are exit codes 0, 1 and 3.
    """
    good = make_token("a", "s", secret=DEFAULT_SECRET)
    told = run(tmp_path, "token", "--verify", "-", "--json", stdin=good + "\n")
    assert told.returncode == 0
    assert json.loads(told.stdout).items() >= {"agent_id": "a", "session_id": "s"}.items()
    for token, status in (
        (make_token("a", secret="another"), 1),
        ("nonsense", 1),
        ("", 1),
        (make_token("a", secret=DEFAULT_SECRET, seconds=-5), 3),
    ):
        done = run(tmp_path, "token", "--verify", "-", stdin=token)
        assert (done.returncode, done.stdout) == (status, "") and done.stderr.count("\n") == 1, token


@pytest.mark.parametrize(
    "arguments",
    [(), ("a", "--verify", "b"), ("a ",), ("a", "--session", " s"), ("a", "--ttl", "0s"), ("a", "--ttl", "1y")],
)
def test_invalid_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """
    Invalid usage ends with 2.
    """
    done = run(tmp_path, "token", *arguments)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("agent", ["general purpose", "équipe/\N{ROCKET}"])
def test_any_name(tmp_path: Path, agent: str) -> None:
    """
    A token can be made for every valid agent name.
    """
    token = run(tmp_path, "token", agent, "--session", f"of {agent}").stdout.strip()
    done = run(tmp_path, "token", "--verify", "-", "--json", stdin=token)
    said = json.loads(done.stdout)
    assert (said["agent_id"], said["session_id"]) == (agent, f"of {agent}")
