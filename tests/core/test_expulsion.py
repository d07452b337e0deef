"""
Agents that an operator disconnects, and whose tokens are revoked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.expulsion import Expelled
from dcm_ws.core.revocations import KEEP_MS, MAX_REVOKED
from dcm_ws.core.session import Origin, State
from dcm_ws.protocol.errors import CloseCode, ErrorCode, ProtocolError
from dcm_ws.protocol.tokens import Claims, sign
from tests.core.living import finish, live
from tests.core.owning import Air, LateOwners
from tests.fakes import SECRET, WALL_MS, Client, make_core
from tests.protocol.web_tokens import sign_web_token


@pytest.fixture
def core(clock: Clock) -> Core:
    return make_core(clock, production=True)


def token(core: Core, agent: str = "ann") -> str:
    return sign(SECRET, agent, None, core.world.wall_ms())


def with_token(core: Core, agent: str = "ann", *, observer: bool = False) -> Client:
    client = Client(core, Origin(observer=observer))
    client.say(type="auth", token=token(core, agent))
    assert client.session.agent == agent
    client.peer.take()
    return client


def expel(core: Core, agent: str = "ann", **more: Any) -> Expelled:
    found: list[Any] = []
    core.expulsion.expel(agent, found.append, **more)
    (one,) = found
    if isinstance(one, ProtocolError):
        raise one
    assert isinstance(one, Expelled)
    return one


def test_disconnecting(core: Core) -> None:
    """
    All connections of an agent are closed with 4003, those of observers, too, and no others; it may come back.
    """
    agent, observer, other = with_token(core), with_token(core, observer=True), with_token(core, "bob")
    stranger = Client(core)
    assert expel(core) == Expelled(2, 0, [])
    assert [one.peer.closed for one in (agent, observer)] == [CloseCode.DISCONNECTED] * 2
    assert [one.peer.closed for one in (other, stranger)] == [None] * 2
    assert core.counts.closes[CloseCode.DISCONNECTED] == 2
    assert expel(core, "nobody") == Expelled(0, 0, [])
    with_token(core)


def test_revoking(core: Core, clock: Clock) -> None:
    """
    Tokens that were issued up to then are refused; later ones are good, and so are those of others.
    """
    old, other = token(core), token(core, "bob")
    client = with_token(core)
    clock.advance(1)
    assert expel(core, revoke=True) == Expelled(1, WALL_MS + 1000, [])
    assert client.peer.closed is CloseCode.DISCONNECTED
    for given, code in ((old, "TOKEN_INVALID"), (token(core), "TOKEN_INVALID"), (other, None)):
        answer = Client(core).say(type="auth", token=given, id=1)
        assert [one.get("code") for one in answer if one.get("id") == 1] == [code]
    with pytest.raises(ProtocolError, match="revoked"):
        core.callers.admit(old, None, "")
    clock.advance(0.001)
    with_token(core)
    # what holds already is not made weaker
    core.expulsion.load([("ann", WALL_MS)])
    assert Client(core).say(type="auth", token=old, id=1)[-1]["code"] == "TOKEN_INVALID"


def test_token_of_the_future(core: Core) -> None:
    """
    A token that says that it was issued later than the clocks may differ can be revoked, too.
    """
    later = core.world.wall_ms() + 86_400_000
    seconds = later / 1000 + 60
    tokens = [
        sign(SECRET, "ann", None, later),
        sign_web_token(SECRET, "HS256", seconds, iat=later // 1000),
    ]
    for given in tokens:
        assert core.identity.verify(given)
    expel(core, revoke=True)
    for given in tokens:
        with pytest.raises(ProtocolError, match="revoked"):
            core.identity.verify(given)


def test_development(clock: Clock) -> None:
    """
    In development an agent without a token is disconnected, and may come back.
    """
    core = make_core(clock)
    client = Client(core)
    client.auth("ann")
    assert expel(core, revoke=True).closed == 1
    client = Client(core)
    client.auth("ann")
    assert client.session.agent == "ann"


def test_revocations_of_the_database(core: Core, clock: Clock) -> None:
    """
    What another node, or this one before its restart, has revoked closes the clients whose tokens are older.
    """
    old, other = with_token(core), with_token(core, "bob")
    clock.advance(1)
    core.expulsion.load([("ann", WALL_MS + 500), ("eve", WALL_MS)])
    assert (old.peer.closed, other.peer.closed) == (CloseCode.DISCONNECTED, None)
    new = with_token(core)
    core.expulsion.load([("ann", WALL_MS + 500)])
    core.expulsion.load([("ann", WALL_MS + 600)])
    assert new.peer.closed is None


def test_the_database_tells_first(core: Core) -> None:
    """
    Connections that were closed because the database told of the revocation before the operator's order came are
    counted once.
    """

    def save(agent: str, revoked_at: int, done: Callable[[bool], object]) -> None:
        core.expulsion.load([(agent, revoked_at)])
        done(True)

    core.expulsion.save = save
    with_token(core), with_token(core)
    with_token(core, "bob")
    assert expel(core, revoke=True) == Expelled(2, WALL_MS, [])
    assert expel(core, "bob", revoke=True) == Expelled(1, WALL_MS, [])
    assert expel(core, revoke=True) == Expelled(0, WALL_MS, [])


def test_saving(core: Core) -> None:
    """
    A revocation holds when it is in the database; if it cannot be written, nothing is done.
    """
    saves: list[tuple[str, int, Callable[[bool], object]]] = []
    core.expulsion.save = lambda *what: saves.append(what)
    client, found = with_token(core), list[Any]()
    core.expulsion.expel("ann", found.append, revoke=True)
    agent, revoked_at, ready = saves.pop()
    assert (agent, revoked_at, found, client.peer.closed) == ("ann", WALL_MS, [], None)
    ready(False)
    assert (found[0].code, client.peer.closed) == (ErrorCode.NOT_AVAILABLE, None)
    with_token(core)
    core.expulsion.expel("ann", found.append, revoke=True)
    saves.pop()[2](True)
    assert found[1] == Expelled(2, WALL_MS, [])
    # only to disconnect needs no database
    assert expel(core, "bob").closed == 0 and not saves


def test_number(core: Core, clock: Clock) -> None:
    """
    The number of revocations is limited; old ones make room, since no token is that old.
    """
    core.expulsion.load((f"agent {number}", WALL_MS) for number in range(MAX_REVOKED))
    with pytest.raises(ProtocolError, match="already"):
        expel(core, revoke=True)
    assert core.counts.limits.max_revoked.value == 1
    assert expel(core, "agent 1", revoke=True).revoked_at == WALL_MS
    clock.advance(KEEP_MS / 1000)
    assert expel(core, revoke=True).closed == 0


def test_an_agent_that_another_node_has(clock: Clock) -> None:
    """
    A client that waits for its agent when its token is revoked is closed.
    """
    owners = LateOwners()
    core = make_core(clock, production=True, owners=owners)
    finish(core.loading.load({}, ()))
    client = Client(core)
    client.say(type="auth", token=token(core))
    assert client.session.state is State.WAITING
    expel(core, revoke=True)
    owners.answer()
    assert client.peer.closed is CloseCode.DISCONNECTED
    # without a token there is nothing to revoke
    assert not core.identity.is_revoked(Claims("ann", None, 0))


def test_other_nodes(clock: Clock) -> None:
    """
    The connections at other nodes are closed, too, and their tokens refused there.
    """
    air = Air()
    one, two, three = (make_core(clock, production=True, bus=air.end(name)) for name in "123")
    for core in (one, two, three):
        live(core, clock, 3)
    clients = [with_token(core) for core in (one, two, three)]
    old = token(one)
    assert expel(one, revoke=True) == Expelled(3, one.world.wall_ms(), [])
    assert [client.peer.closed for client in clients] == [CloseCode.DISCONNECTED] * 3
    assert Client(two).say(type="auth", token=old, id=1)[-1]["code"] == "TOKEN_INVALID"
    # a node of another version
    assert air.ends["2"].listeners["kick"]("1", b"nonsense") is None
    air.ends["2"].listeners["kick"] = lambda node, message: None
    assert expel(one) == Expelled(0, 0, ["2"])
