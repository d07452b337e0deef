"""
The judge of the durable log finds what is wrong in histories that are made up.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.chaos.durable.history import (
    DONE,
    NEVER,
    REFUSED,
    UNDONE,
    UNKNOWN,
    AgentHistory,
    Call,
    Follower,
    Gap,
    History,
    Incident,
    Moment,
    Receipt,
    Restore,
    Row,
    SentAck,
    padding,
)
from tests.chaos.durable.judge import judge
from tests.chaos.durable.report import around, report

TOPIC = "topics/t"


def called(number: int, outcome: str = DONE) -> Call:
    """
    Event C{number}: it was called in second C{number * 10}, and published in the next.
    """
    at = number * 10.0
    call = Call("p", number, "sql", "s", TOPIC, "task.created", at, None, at + 1, outcome)
    call.id, call.opened = f"msg_{number}", at
    return call


def row(number: int, pos: int | None = None) -> Row:
    data = json.dumps({"publisher": "p", "number": number, "padding": padding(number)})
    return Row(pos or number, f"msg_{number}", TOPIC, "task.created", data, True, None)


def receipt(number: int, at: float | None = None, *, connection: int = 1, channel: str = TOPIC) -> Receipt:
    when = number * 10.0 + 2 if at is None else at
    return Receipt(when, connection, "e", number, channel, "task.created", f"msg_{number}", "p", number, True)


def acked(number: int, at: float | None = None, certain: float | None = None) -> SentAck:
    when = number * 10.0 + 2.1 if at is None else at
    return SentAck(when, 1, f"msg_{number}", None, "e", when + 0.1 if certain is None else certain)


def good() -> History:
    """
    Three events, a follower and an agent that get all of them, and nothing wrong.
    """
    history = History(calls=[called(number) for number in (1, 2, 3)], log={"e": {n: row(n) for n in (1, 2, 3)}})
    follower = Follower("f", frozenset({TOPIC}), ("e", 0), [receipt(number) for number in (1, 2, 3)])
    agent = AgentHistory(
        "a",
        since={TOPIC: ("e", 0)},
        receipts=[receipt(number) for number in (1, 2, 3)],
        acks=[acked(number) for number in (1, 2, 3)],
    )
    history.followers.append(follower)
    history.agents["a"] = agent
    return history


def wrongs(history: History) -> list[str]:
    return [wrong for _, wrong in judge(history).wrongs]


def only(history: History) -> str:
    (wrong,) = wrongs(history)
    return wrong


def test_a_good_history() -> None:
    """
    Nothing is wrong if everybody got everything, and the counts say so.
    """
    verdict = judge(good())
    assert not verdict.wrongs
    assert verdict.counts["published by sql: done"] == 3
    assert verdict.counts["events at followers"] == verdict.counts["events at agents"] == 3


def _lost(history: History) -> None:
    del history.log["e"][3]
    history.followers[0].steps.pop()
    history.agents["a"].receipts.pop()


def _ghost(history: History) -> None:
    history.calls[2].outcome = UNDONE


def _refused_ghost(history: History) -> None:
    history.calls[2].outcome = REFUSED


def _hole(history: History) -> None:
    history.log["e"][5] = row(3, 5)._replace(id="msg_3")
    del history.log["e"][3]
    history.followers[0].steps[2] = receipt(3)._replace(pos=5)
    history.agents["a"].receipts[2] = receipt(3)._replace(pos=5)


def _twice(history: History) -> None:
    history.log["e"][4] = row(3, 4)
    again = receipt(3)._replace(pos=4, at=33)
    history.followers[0].steps.append(again)
    history.agents["a"].receipts.append(again._replace(at=32.05))


def _inverted(history: History) -> None:
    rows = history.log["e"]
    rows[1], rows[2] = row(2, 1), row(1, 2)
    steps = history.followers[0].steps
    steps[0], steps[1] = receipt(2)._replace(pos=1), receipt(1)._replace(pos=2)
    history.agents["a"].receipts[:2] = [receipt(2)._replace(pos=1), receipt(1)._replace(pos=2)]
    for call in history.calls:
        call.stream = f"s{call.number}"


def _disordered_stream(history: History) -> None:
    _inverted(history)
    for call in history.calls:
        call.stream, call.ended = "s", 100.0


def _changed(history: History) -> None:
    history.log["e"][2] = row(2)._replace(event="task.failed")
    for steps in (history.followers[0].steps, history.agents["a"].receipts):
        steps[1] = receipt(2)._replace(event="task.failed")


def _left(history: History) -> None:
    history.left.append(("msg_9", TOPIC, "{}"))


def _unpublished(history: History) -> None:
    del history.calls[2]


def _wrong_id(history: History) -> None:
    history.calls[2].id = "msg_other"


def _wrong_position(history: History) -> None:
    history.calls[2].pos, history.calls[2].epoch = 2, "e"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_lost, "LOST"),
        (_ghost, "GHOST"),
        (_refused_ghost, "GHOST"),
        (_hole, "nothing between 2 and 5"),
        (_twice, "in the log twice"),
        (_inverted, "was called after"),
        (_disordered_stream, "behind ('p', 1)"),
        (_changed, "and was task.created"),
        (_left, "left in the inbox"),
        (_unpublished, "never published"),
        (_wrong_id, "msg_other"),
        (_wrong_position, "acknowledged at position 2"),
    ],
)
def test_what_is_wrong_with_the_log(spoil: Callable[[History], None], words: str) -> None:
    """
    What was published must be in the log once, as it was published, in real-time order, and nothing else.
    """
    history = good()
    spoil(history)
    found = wrongs(history)
    assert any(words in wrong for wrong in found), found


def test_unknown_outcomes_are_no_wrongs() -> None:
    """
    An event whose publisher never knew may be in the log or not; one that was refused may be there if something broke.
    """
    for in_log in (True, False):
        history = good()
        history.calls[2].outcome = UNKNOWN
        if not in_log:
            _lost(history)
        assert not wrongs(history)
    history = good()
    history.calls[2].outcome = REFUSED
    history.incidents.append(Incident("database", "stop", 30.5, 31))
    assert not wrongs(history)


def test_one_key_stands_for_one_event() -> None:
    """
    A second attempt under the same key may not be in the log, and has the id of the first.
    """
    history = good()
    again = called(3)
    again.began, again.opened, again.ended, again.key = 35, 35, 36, "k"
    history.calls[2].key = "k"
    history.calls.append(again)
    assert not wrongs(history)
    again.id = "msg_9"
    assert "is in the log as msg_3" in only(history)
    # the transactions were open at the same time: neither could see the other
    again.opened = 30.5
    assert not wrongs(history)
    # nor does a later one know which of them was numbered
    later = called(3)
    later.began, later.opened, later.ended, later.key, later.id = 37, 37, 38, "k", "msg_9"
    history.calls.append(later)
    assert not wrongs(history)
    history.calls.remove(later)
    # the first one is not remembered any more when publish() is called, but when events are numbered
    again.opened, history.key_seconds = 35, 3
    assert not wrongs(history)


def test_a_restore_loses_what_came_after_the_backup() -> None:
    """
    What was committed after the backup is lost with the database; what was committed before is not.
    """
    for backed_up, words in ((25.0, []), (35.0, ["LOST"])):
        history = good()
        history.restores.append(Restore(backed_up, 40, 41))
        history.log["n"] = {number: row(number) for number in (1, 2)}
        gap = Gap(42, 1, "epoch", "e", 3, "n", 2)
        history.followers[0].steps.append(gap)
        history.agents["a"].gaps.append(gap)
        found = wrongs(history)
        assert len(found) == len(words) and all(word in wrong for word, wrong in zip(words, found, strict=True)), found


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda steps: steps.pop(1), "did not come: LOST"),
        (lambda steps: steps.pop(), "did not come: LOST"),
        (lambda steps: steps.append(receipt(2)), "came twice"),
        (lambda steps: steps.insert(0, steps.pop()), "came after"),
        (lambda steps: steps.__setitem__(1, receipt(2)._replace(id="msg_9")), "where the log has msg_2"),
        (lambda steps: steps.__setitem__(1, receipt(2)._replace(pos=9)), "where the log has nothing"),
        (lambda steps: steps.__setitem__(1, receipt(2)._replace(intact=False)), "changed on its way"),
        (lambda steps: steps.__setitem__(1, receipt(2)._replace(channel="topics/u")), "and is on topics/t"),
        (lambda steps: steps.append(Gap(40, 1, "expired", "e", 3, "e", 3)), "have expired, and they have not"),
        (lambda steps: steps.append(Gap(40, 1, "epoch", "e", 3, "n", 3)), "was never restored"),
        (lambda steps: steps.append(Gap(40, 1, "ahead", "e", 3, "e", 3)), "is ahead of the log"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_follower(spoil: Callable[[list[Receipt | Gap]], object], words: str) -> None:
    """
    A follower gets each event once, in order, as the log has it, and is told of no gap without a reason.
    """
    history = good()
    spoil(history.followers[0].steps)
    found = wrongs(history)
    assert any(words in wrong for wrong in found), found


def test_a_gap_that_is_told_excuses_a_loss() -> None:
    """
    What has left the log may be missing, if the follower was told.
    """
    history = good()
    history.followers[0].steps[1] = Gap(25, 1, "expired", "e", 1, "e", 2)
    history.floors["e"] = 3
    assert not wrongs(history)


def test_a_loss_of_an_agent() -> None:
    """
    An agent gets each tracked event of its subscriptions, or is told of a gap.
    """
    history = good()
    history.agents["a"].receipts.pop(1)
    assert "did not come on topics/t: LOST" in only(history)
    history.agents["a"].gaps.append(Gap(40, 1, "expired", "e", 0, "e", 3))
    assert not wrongs(history)


def test_disorder_at_an_agent() -> None:
    """
    What comes first after something newer is out of order, unless the agent has several connections.
    """
    history = good()
    receipts = history.agents["a"].receipts
    receipts[0], receipts[1] = receipts[1], receipts[0]
    assert "came first after" in only(history)
    history.agents["a"].several = True
    assert not wrongs(history)


def test_later_deliveries_on_a_channel_that_is_left() -> None:
    """
    An agent that leaves C{global} at each connection may get a later delivery there that is older than what it got
    there before.  It must not get an event for the first time like that, and not on a channel where it stays.
    """
    history = good()
    agent = history.agents["a"]
    agent.acks[:] = [acked(2), acked(3), acked(1, 50.0)]
    first, second, third = agent.receipts
    copies = [receipt(2, channel="global"), receipt(1, 49.0, channel="global")]
    agent.receipts[:] = [first, second, copies[0], third, copies[1]]
    assert not wrongs(history)
    agent.since["global"] = "e", 2
    assert "position 1 came first after 2 on global" in wrongs(history)[0]
    del agent.since["global"]
    agent.receipts.remove(first)
    assert "position 1 came first after 2 on global" in only(history)


def test_what_is_acknowledged_does_not_come_again() -> None:
    """
    An event may come again before the service has read the ack, or if the service was killed within about a second.
    """
    history = good()
    agent = history.agents["a"]
    agent.receipts.append(receipt(3, 60))
    assert "came again on topics/t" in only(history)
    history.incidents = [Incident("service", "kill -9", 32.5, 33)]
    assert not wrongs(history)
    history.incidents = [Incident("service", "kill -9", 45, 46)]
    assert "came again" in only(history)
    # the database was away all the while
    history.incidents.append(Incident("database", "stop", 31, 44.5))
    assert not wrongs(history)
    # a service that is told to stop writes what it has
    history.incidents = [Incident("stop", "stop", 32.5, 33)]
    assert "came again" in only(history)
    history.incidents = []
    agent.acks[2].certain = None
    assert not wrongs(history)
    agent.acks[2] = SentAck(32.1, 1, None, 3, "e", 32.2)
    assert "came again" in only(history)


def test_acks_are_lost_with_their_node() -> None:
    """
    The acks that one node of a cluster has lost excuse nothing that another one has been told, unless the agent was
    connected to both.
    """
    history = good()
    agent = history.agents["a"]
    agent.receipts.append(receipt(3, 60))
    agent.acks[2].node = "n1"
    history.incidents = [Incident("service", "kill -9", 32.5, 33, "n2")]
    assert "came again" in only(history)
    agent.several = True
    assert not wrongs(history)
    agent.several = False
    history.incidents = [Incident("service", "kill -9", 32.5, 33, "n1")]
    assert not wrongs(history)


def test_acks_are_lost_if_a_node_does_not_answer() -> None:
    """
    Those of about the last second before the agent was taken with what the database had.
    """
    history = good()
    history.agents["a"].receipts.append(receipt(3, 60))
    history.unanswered = [Moment(33, "a")]
    assert not wrongs(history)
    # the former owner learns of it with its next flush
    history.unanswered = [Moment(31, "a")]
    assert not wrongs(history)
    history.unanswered = [Moment(33, "b"), Moment(35, "a"), Moment(29, "a")]
    assert "came again" in only(history)
    # the node could write nothing meanwhile
    history.incidents = [Incident("frozen", "frozen", 32.5, 36)]
    assert not wrongs(history)


def test_acks_are_lost_by_a_node_that_is_fenced() -> None:
    """
    What it has not written when it stops running never counts, nor what it is told before it knows.
    """
    history = good()
    history.agents["a"].receipts.append(receipt(3, 60))
    history.agents["a"].acks[2].node = "n1"
    history.incidents = [Incident("fenced", "frozen", 32.5, 45, "n1")]
    assert not wrongs(history)
    history.incidents = [Incident("fenced", "frozen", 18, 31, "n1")]
    assert not wrongs(history)
    for incident in (Incident("fenced", "frozen", 40, 55, "n1"), Incident("path", "no bus", 30, 55, "n1")):
        history.incidents = [incident]
        assert "came again" in only(history)


def test_a_notification_that_two_nodes_log() -> None:
    """
    Another node has taken the lead at that time.
    """
    history = good()
    history.log["e"][4] = row(3, 4)._replace(id="msg_4")
    again = receipt(3)._replace(pos=4, at=33, id="msg_4")
    history.followers[0].steps.append(again)
    history.agents["a"].receipts.append(again)
    history.calls[2].via, history.calls[2].id = "notify", None
    history.is_cluster = True
    assert "is in the log twice" in only(history)
    history.incidents = [Incident("service", "kill -9", 31, 32, "n1")]
    assert not wrongs(history)
    history.is_cluster = False
    assert "is in the log twice" in only(history)


def test_what_is_not_acknowledged_comes_again() -> None:
    """
    An event that was left without an ack comes again, or becomes a dead letter, which comes again when it is redriven.
    """
    history = good()
    agent = history.agents["a"]
    agent.left_unanswered["msg_3"] = 1
    agent.acks.pop()
    assert "NOT REDELIVERED" in only(history)
    agent.left_unanswered["msg_3"] = NEVER
    assert "is no dead letter" in only(history)
    history.buried.add(("a", "msg_3"))
    assert not wrongs(history)
    history.redriven_at = 90
    assert "was redriven, and did not come again" in only(history)
    agent.receipts.append(receipt(3, 91))
    assert not wrongs(history)
    history.dead.add(("a", "msg_3"))
    assert "is still a dead letter" in only(history)


def test_redelivery_has_an_end() -> None:
    """
    One connection gets an event three times, and an agent fifteen times.
    """
    history = good()
    receipts, acks = history.agents["a"].receipts, history.agents["a"].acks
    acks.pop()
    receipts += [receipt(3, 33.0 + number) for number in (0, 1)]
    assert not wrongs(history)
    receipts.append(receipt(3, 36))
    assert "came 4 times on one connection" in only(history)
    history.came_back = [Moment(31, "a"), Moment(34.5, "b"), Moment(37, "a")]
    assert "came 4 times on one connection" in only(history)
    history.came_back = [Moment(34.5, "a")]
    assert not wrongs(history)
    history.came_back = []
    receipts[:] = receipts[:2] + [receipt(3, 32.0 + number, connection=number) for number in range(16)]
    assert "came 16 times in all" in only(history)


def test_an_observer_that_comes_before_the_log_is_found() -> None:
    """
    It is told of the epoch of the log a moment later.
    """
    history = good()
    follower = history.followers[0]
    follower.start = "unknown", 0
    history.restores = [Restore(0, 0, 1)]
    follower.steps.insert(0, Gap(1, 1, "epoch", "unknown", 0, "e", 0))
    assert not wrongs(history)
    follower.start = "unknown", 1
    assert "which the database never had" in only(history)


def test_subscriptions_are_restored() -> None:
    """
    An agent that comes back is subscribed to what it was subscribed to.
    """
    history = good()
    history.agents["a"].forgotten.append((20.0, "e", TOPIC))
    assert only(history) == "a: was not subscribed to topics/t again"


def test_all_frames_are_sent_again() -> None:
    """
    An agent that is subscribed to a topic and to global gets both frames when an event is sent again.
    """
    history = good()
    agent = history.agents["a"]
    agent.since["global"] = "e", 0
    both = [receipt(3), receipt(3, channel="global")]
    agent.receipts[2:] = [*both, *(one._replace(at=35) for one in both)]
    agent.acks[2] = acked(3, 35.1)
    assert not wrongs(history)
    agent.receipts.pop()
    # the connection ended there
    assert not wrongs(history)
    agent.receipts.append(receipt(2, 36))
    del agent.acks[1:]
    assert "HALF" in only(history)


def test_report_tells_what_happened_around_a_loss() -> None:
    """
    A failing run prints the disturbances near each event that is wrong.
    """
    history = good()
    _lost(history)
    history.incidents = [Incident("service", "kill -9 of the service", 30, 31.5), Incident("other", "far", 80, 81)]
    text = "\n".join(report(history, judge(history), "some\nlog"))
    assert "LOST" in text and "kill -9 of the service" in text and "far" not in text
    assert list(around(history, 500)) == []
