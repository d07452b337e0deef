from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.chaos.course import disturbed
from tests.chaos.ledger import SLACK, Ledger, settle
from tests.chaos.records import Publication, Reading, Receipt, Records, Stay
from tests.chaos.run import report


@pytest.mark.integration
def test_promises_hold_while_everything_breaks() -> None:
    """
    Connections are reset and databases stopped, and no tracked event is lost, comes out of order or under two ids.
    """
    records = disturbed(8, seed=1)
    ledger = settle(records)
    assert not ledger.wrongs, "\n".join(report(records, ledger))
    assert all(row.once for row in ledger.rows.values()), ledger.table()
    assert records.disturbances.total() > 5


LOGGED = ("task.created", "task.failed", "session.created")


def publication(number: int, event: str = "task.created", *, from_database: bool = False) -> Publication:
    """
    One that took from second C{number * 10} to the next.
    """
    at = number * 10.0
    pos = number if event in LOGGED else None
    return Publication("p", number, "topics/t", event, from_database, at, at + 1, f"msg_{number}", pos)


def receipt(number: int, event: str = "task.created", *, name: str = "", publisher: str = "p") -> Receipt:
    pos = number if event in LOGGED else None
    return Receipt("a", "topics/t", event, name or f"msg_{number}", publisher, number, True, pos)


def made_up(*receipts: Receipt, publications: tuple[Publication, ...] | None = None) -> Records:
    """
    Records of one agent that was there all the while, and of three events if none are given.
    """
    return Records(
        wanted={"a": ("topics/t",)},
        publications=list(publications or map(publication, (1, 2, 3))),
        receipts=list(receipts),
        stays=[Stay("a", 0)],
    )


def only_wrong(ledger: Ledger) -> str:
    (wrong,) = ledger.wrongs
    return wrong


def test_ledger_of_a_good_run() -> None:
    """
    Everything once, or once more under the same id and after newer ones: nothing is wrong.
    """
    ledger = settle(made_up(receipt(1), receipt(2), receipt(3), receipt(1)))
    assert not ledger.wrongs
    row = ledger.rows["tracked, client"]
    assert (row.sent, row.due, row.once, row.again, row.lost, row.disordered) == (3, 3, 2, 1, 0, 0)


def test_ledger_finds_a_loss() -> None:
    """
    A tracked event that never came was lost, wherever the agent was.
    """
    records = made_up(receipt(1), receipt(3))
    records.stays = [Stay("a", 0, 5), Stay("a", 25)]
    ledger = settle(records)
    assert "event 2 of p" in only_wrong(ledger) and "was lost" in only_wrong(ledger)
    assert ledger.rows["tracked, client"].lost == 1


def test_ledger_finds_disorder() -> None:
    """
    What comes for the first time after something newer of the same publisher is out of order.
    """
    ledger = settle(made_up(receipt(1), receipt(3), receipt(2)))
    assert only_wrong(ledger) == "a: event 2 of p on topics/t came first after 3"
    assert ledger.rows["tracked, client"].disordered == 1


def test_what_is_not_logged_may_come_first() -> None:
    """
    It does not wait while an agent catches up with the log.
    """
    publications = publication(1), publication(2), publication(3, "agent.heartbeat")
    ledger = settle(made_up(receipt(3, "agent.heartbeat"), receipt(1), receipt(2), publications=publications))
    assert not ledger.wrongs


@pytest.mark.parametrize(
    ("strange", "words"),
    [
        (receipt(1, name="msg_9"), "came as msg_9, and is msg_1"),
        (receipt(1)._replace(number=4), "was never published"),
        (receipt(1, publisher="q"), "was never published"),
        (receipt(1)._replace(intact=False), "was changed on its way"),
        (receipt(1)._replace(pos=2), "came from position 2, and is at 1"),
        (receipt(1)._replace(pos=None), "came with position None"),
        (receipt(1, "task.failed"), "is not what was published"),
        (receipt(1)._replace(channel="topics/u"), "is not what was published"),
    ],
)
def test_ledger_finds_impostors(strange: Receipt, words: str) -> None:
    """
    An event that comes again under another id, or as something else than it was, is no duplicate.
    """
    ledger = settle(made_up(receipt(1), receipt(2), receipt(3), strange))
    assert any(words in wrong for wrong in ledger.wrongs), ledger.wrongs


def test_ledger_finds_one_id_for_two_events() -> None:
    """
    An id stands for one event.
    """
    unnamed = tuple(map(publication, (1, 2)))
    for each in unnamed:
        each.id = None
    ledger = settle(made_up(receipt(1), receipt(2, name="msg_1")._replace(pos=1), publications=unnamed))
    assert "that is another event" in only_wrong(ledger)


def test_untracked_event_may_be_missed_only_by_who_was_away() -> None:
    """
    An untracked event must come where one connection lasted from before it until after it.
    """
    one = publication(2, "agent.heartbeat")
    assert one.ended is not None
    records = made_up(publications=(one,))
    assert "was lost" in only_wrong(settle(records))
    for stays in ([Stay("a", 0, one.ended + SLACK / 2)], [Stay("a", 0, 5), Stay("a", 20.5)], []):
        records.stays = stays
        ledger = settle(records)
        assert not ledger.wrongs
        assert ledger.rows["untracked, client"].missed == 1


def test_publication_without_an_ack_is_unknown() -> None:
    """
    Nobody can say whether an event was lost whose publisher was cut off before its ack.
    """
    one = publication(1)
    one.ended = one.id = None
    ledger = settle(made_up(publications=(one,)))
    assert not ledger.wrongs
    assert ledger.rows["tracked, client"].unknown == 1


def test_notification_to_a_deaf_service_is_counted_apart() -> None:
    """
    From a cut until the service says that the database is up, what was NOTIFYed may be lost; before and after, not.
    """
    notified = [publication(number, from_database=True) for number in (1, 2, 3)]
    records = made_up(receipt(1), receipt(3), publications=tuple(notified))
    assert "was lost" in only_wrong(settle(records))
    records.cuts, records.database = [19.0], [(19.1, False), (25.0, True)]
    ledger = settle(records)
    assert not ledger.wrongs
    row = ledger.rows["tracked, database"]
    assert (row.unheard, row.unheard_lost, row.due, row.once) == (1, 1, 2, 2)
    # what clients publish does not go through the database
    for each in notified:
        each.from_database = False
    assert "was lost" in only_wrong(settle(records))


def read_by(*numbers: int, gap: range = range(0)) -> Records:
    """
    Records of three events of which a reader got some.
    """
    records = made_up(receipt(1), receipt(2), receipt(3))
    records.readings["r"] = Reading({"topics/t"}, Counter(("p", number) for number in numbers), [gap])
    return records


def test_reader_gets_each_event_once_or_is_told_of_a_gap() -> None:
    """
    What a reader did not get must be in a gap of which it was told, and nothing may come twice.
    """
    assert not settle(read_by(1, 2, 3)).wrongs
    assert "event 2 of p" in only_wrong(settle(read_by(1, 3)))
    assert not settle(read_by(1, 3, gap=range(2, 3))).wrongs
    assert "did not come, and no gap was told" in only_wrong(settle(read_by(1, 3, gap=range(1, 2))))
    assert "came 2 times" in only_wrong(settle(read_by(1, 2, 2, 3)))


def test_events_that_readers_need_not_get() -> None:
    """
    Readers get no events of other channels, none that are not logged, and perhaps some of which nobody knows.
    """
    for strange in (
        publication(2, "agent.heartbeat"),
        replace(publication(2), channel="topics/u"),
        replace(publication(2), ended=None, id=None, pos=None),
    ):
        records = read_by(1, 3)
        records.wanted.clear()
        records.publications[1] = strange
        records.receipts[1:2] = []
        assert not settle(records).wrongs


def test_agent_with_several_connections_has_no_order() -> None:
    """
    One connection of an agent may get an older event after another one got a newer one.
    """
    records = made_up(receipt(2), receipt(1), receipt(3))
    assert "came first after" in only_wrong(settle(records))
    records.several.add("a")
    assert not settle(records).wrongs


def test_event_without_an_ack_must_come_again() -> None:
    """
    An event that an agent left without an ack, and that did not come again, breaks a promise.
    """
    records = made_up(receipt(1), receipt(2), receipt(3))
    records.unanswered["a", "msg_2"] = "topics/t"
    assert only_wrong(settle(records)) == "a: msg_2 on topics/t was not acknowledged, and did not come again"


def test_service_must_come_back_to_the_database() -> None:
    """
    A service that never listens again breaks its promise: no loss is excused by that.
    """
    records = made_up(receipt(1), receipt(2), receipt(3))
    records.cuts = [15.0]
    assert "did not come back to the database" in only_wrong(settle(records))


def test_other_wrongs_are_kept() -> None:
    """
    What the run itself found, a client refused for one, stands in the ledger.
    """
    records = made_up(receipt(1), receipt(2), receipt(3))
    records.wrongs.append("all have left, and something stayed")
    assert only_wrong(settle(records)) == "all have left, and something stayed"
