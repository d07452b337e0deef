"""
Agents and readers that hop between the nodes of a cluster: whatever happens, what they are owed arrives.
"""

from __future__ import annotations

import os

import pytest

from dcm_ws.protocol.errors import CloseCode
from dcm_ws.protocol.tokens import sign
from tests.fakes import SECRET
from tests.fakes import Client as FakeClient
from tests.simulation.cluster import Cluster
from tests.simulation.courses import COURSES, crowd, disturb, judge, run

SEEDS = int(os.environ.get("DCM_WS_TEST_COURSES", "2"))


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("name", COURSES)
def test_promises_are_kept(name: str, seed: int) -> None:
    course = COURSES[name]
    with Cluster(seed, 4, keep=course.keep) as cluster:
        crowd(cluster, agents=6, readers=2, topics=3)
        cluster.make_safe()
        run(cluster, course, 150)
        judge(cluster, course)


@pytest.mark.parametrize("seed", range(max(1, SEEDS // 2)))
def test_revoked_agent(seed: int) -> None:
    """
    An agent whose tokens are revoked at one node is closed and refused at all of them until its token expires, while
    others are kicked, hop, and get what they were promised.
    """
    course = COURSES["kicked agents"]
    with Cluster(seed, 3) as cluster:
        crowd(cluster, agents=4, readers=1, topics=2)
        cluster.make_safe()
        token = sign(SECRET, "rogue", None, cluster.wall_ms(), ttl_ms=120_000)

        def refusals() -> set[str]:
            """
            How the nodes refuse the token; empty for one that does not.
            """
            answers = set()
            for node in cluster.nodes:
                client = FakeClient(node.core)
                answers.add("".join(one.get("code", "") for one in client.say(type="auth", token=token, id=1)))
                client.leave()
            return answers

        rogues = [FakeClient(node.core) for node in cluster.nodes]
        for rogue in rogues:
            rogue.say(type="auth", token=token)
        disturb(cluster, course, 20)
        assert [rogue.session.agent for rogue in rogues] == ["rogue"] * 3
        found: list[object] = []
        cluster.random.choice(cluster.nodes).core.expulsion.expel("rogue", found.append, revoke=True)
        disturb(cluster, course, 20)
        assert [rogue.peer.closed for rogue in rogues] == [CloseCode.DISCONNECTED] * 3
        assert len(found) == 1
        for rogue in rogues:
            rogue.leave()
        assert refusals() == {"TOKEN_INVALID"}
        run(cluster, course, 40)
        assert refusals() == {"TOKEN_INVALID"}
        judge(cluster, course)
        cluster.run(120.0)
        assert refusals() == {"TOKEN_EXPIRED"}
