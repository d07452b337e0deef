"""
Keys that have to be fetched, and who may have them fetched how often.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.counts import Counts, TokenKeyCounts
from dcm_ws.core.key_ring import MIN_INTERVAL, PAUSE, WAITING_MAX, WAITING_PER_ADDRESS, KeyRing
from dcm_ws.protocol.errors import ErrorCode
from dcm_ws.protocol.web_tokens import read_keys
from tests.core.clients import only
from tests.core.owning import LateOwners
from tests.fakes import SECRET, WALL_MS, Client, make_core
from tests.protocol.web_tokens import key_set, private_key, public_jwk, sign_web_token

THEN = WALL_MS // 1000 + 3600
HERE, THERE = "192.0.2.1", "192.0.2.2"


def token(kid: str, **claims: Any) -> str:
    return sign_web_token(private_key("ES256", kid), "ES256", THEN, header={"kid": kid}, **claims)


def keys(*kids: str) -> Any:
    return read_keys(key_set(*(public_jwk("ES256", kid) for kid in kids)))


class Fetches:
    """
    A ring, and what is asked of it.
    """

    def __init__(self, clock: Clock) -> None:
        counts = Counts()
        self.counts, self.limits = counts.token_keys, counts.limits
        self.ring = KeyRing(clock.seconds, counts)
        self.ring.fetch = lambda: None
        self.ready: list[str] = []

    def ask(self, kid: str, address: str = HERE, name: str = "") -> bool:
        return self.ring.await_key(token(kid), lambda: self.ready.append(name or kid), address)


@pytest.fixture
def fetches(clock: Clock) -> Fetches:
    return Fetches(clock)


def test_known_keys(fetches: Fetches) -> None:
    """
    Nothing is fetched for a key that is known, a token with a secret, or what is no token.
    """
    fetches.ring.keys = keys("a")
    assert not fetches.ask("a")
    for text in ("x.y", "a.b.c", "", sign_web_token(SECRET, "HS256", THEN)):
        assert not fetches.ring.await_key(text, list, HERE)
    assert fetches.counts == TokenKeyCounts()


def test_without_a_source(clock: Clock) -> None:
    """
    Without a source nobody waits.
    """
    ring = KeyRing(clock.seconds, Counts())
    ring.refresh()
    assert not ring.await_key(token("a"), list, HERE)


def test_those_that_wait_are_called_once(fetches: Fetches) -> None:
    """
    Keys are fetched once for all that wait, who are then called once each, in their order.
    """
    assert all(fetches.ask("a", name=str(number)) for number in range(3))
    assert fetches.counts.fetches == 1 and not fetches.ready
    fetches.ring.fetched(keys("a"))
    assert fetches.ready == ["0", "1", "2"]
    assert not fetches.ask("a")
    fetches.ring.refresh()
    fetches.ring.fetched(None)
    assert fetches.ready == ["0", "1", "2"]


def test_failed_fetch(fetches: Fetches, clock: Clock) -> None:
    """
    If the keys cannot be fetched, the ones from before stay, and nobody is to blame.
    """
    fetches.ring.keys = keys("a")
    assert fetches.ask("b")
    fetches.ring.fetched(None)
    assert (fetches.ready, fetches.counts.failures) == (["b"], 1)
    assert not fetches.ask("a")
    clock.advance(MIN_INTERVAL)
    assert fetches.ask("b")


def test_minimum_interval(fetches: Fetches, clock: Clock) -> None:
    """
    Nothing is fetched for an unknown key shortly after the last time, whoever asks.
    """
    assert fetches.ask("a")
    fetches.ring.fetched(keys("a"))
    assert not fetches.ask("b", THERE)
    assert fetches.counts.refused == fetches.limits.token_key_fetches.value == 1
    clock.advance(MIN_INTERVAL)
    assert fetches.ask("b", THERE)
    assert fetches.counts.fetches == 2


def test_pause_of_an_address(fetches: Fetches, clock: Clock) -> None:
    """
    An address whose key is unknown after a fetch may not cause another one for a while; others may.
    """
    assert fetches.ask("nonsense")
    fetches.ring.fetched(keys("a"))
    clock.advance(MIN_INTERVAL)
    assert not fetches.ask("b")
    assert fetches.limits.token_key_fetches.value == 1
    assert fetches.ask("b", THERE)
    fetches.ring.fetched(keys("a", "b"))
    clock.advance(PAUSE - MIN_INTERVAL)
    assert fetches.ask("c")


def test_pauses_are_limited(fetches: Fetches, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of very many such addresses the first ones are forgotten.
    """
    monkeypatch.setattr("dcm_ws.core.key_ring._PAUSES_MAX", 2000)
    most = 2001
    for number in range(0, most, WAITING_MAX):
        for other in range(number, min(most, number + WAITING_MAX)):
            assert fetches.ask("x", f"address {other}")
        fetches.ring.fetched(keys("a"))
        clock.advance(MIN_INTERVAL)
    assert not fetches.ask("x", "address 1")
    assert fetches.ask("x", "address 0")


def test_those_that_wait_are_limited(fetches: Fetches) -> None:
    """
    Only some clients may wait, of one address and in all.
    """
    assert sum(fetches.ask("x") for _ in range(WAITING_PER_ADDRESS + 3)) == WAITING_PER_ADDRESS
    assert sum(fetches.ask("x", str(number)) for number in range(WAITING_MAX)) == WAITING_MAX - WAITING_PER_ADDRESS
    assert fetches.counts.refused == fetches.limits.max_token_key_waiting.value == 3 + WAITING_PER_ADDRESS
    assert fetches.limits.token_key_fetches.value == 0
    fetches.ring.fetched(keys("x"))
    assert len(fetches.ready) == WAITING_MAX


# auth


@pytest.fixture
def core(clock: Clock) -> Core:
    core = make_core(clock, production=True)
    core.identity.keys.fetch = lambda: None
    return core


def test_auth_waits(core: Core) -> None:
    """
    C{auth} with an unknown key is executed when the key is there; nothing that comes after it is read until then.
    """
    client = Client(core)
    client.peer.take()
    assert client.say(type="auth", token=token("a", scope="subscribe:global"), id=1) == []
    assert client.peer.stopped
    core.identity.keys.fetched(keys("a"))
    assert client.peer.take()[0]["subscriptions"] == ["agents/ann", "global"]
    assert not client.peer.stopped
    # it has the key now
    assert client.say(type="auth", token=token("a"), id=2)[0]["success"]


@pytest.mark.parametrize("request_id", [None, 7])
def test_auth_with_a_key_that_stays_unknown(core: Core, request_id: int | None) -> None:
    """
    The refusal comes late, and goes to the request.
    """
    client = Client(core)
    client.peer.take()
    client.say(type="auth", token=token("a"), id=request_id)
    core.identity.keys.fetched(None)
    refused = only(client.peer.take())
    assert (refused["code"], refused.get("id")) == ("TOKEN_INVALID", request_id)
    assert core.counts.refusals[ErrorCode.TOKEN_INVALID] == 1
    assert not client.peer.stopped and client.session.is_stranger


def test_a_client_that_has_left(core: Core) -> None:
    """
    Nothing happens to a client that has left meanwhile.
    """
    client = Client(core)
    client.peer.take()
    client.say(type="auth", token=token("a"))
    client.leave()
    core.identity.keys.fetched(keys("a"))
    assert client.peer.take() == []


def test_a_bug_closes_the_client(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A client that waits is not left alone if something fails.
    """
    client = Client(core)
    client.say(type="auth", token=token("a"))
    monkeypatch.setattr(core.identity, "claims", None)
    with pytest.raises(TypeError):
        core.identity.keys.fetched(keys("a"))
    assert client.peer.closed


def test_a_client_that_waits_for_its_agent_then(clock: Clock) -> None:
    """
    With its key, a client of a cluster may still have to wait for its agent.
    """
    owners = LateOwners()
    core = make_core(clock, production=True, owners=owners)
    core.identity.keys.fetch = lambda: None
    client = Client(core)
    client.peer.take()
    client.say(type="auth", token=token("a"), id=1)
    core.identity.keys.fetched(keys("a"))
    assert client.peer.take() == [] and client.peer.stopped
