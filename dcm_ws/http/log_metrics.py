"""
The log, its engine, and the journal of what agents are owed, as Prometheus metrics.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from dcm_ws.core.counts import Counts
from dcm_ws.core.stats import LogStats
from dcm_ws.http.families import gauge, histogram, moment, one_of, plain
from dcm_ws.http.report import StatsReport

ENGINES = ("memory", "postgres")
"""
Where the log may be.
"""

STATES = ("connecting", "up", "following", "standby", "down")
"""
States of the log.
"""


def log_metrics(stats: StatsReport, counts: Counts) -> Iterator[Metric]:
    """
    Make the metrics of the log.

    @param stats: the body of C{/stats}.
    """
    yield from _contents(stats["log"])
    yield from _engine(stats["log"], counts)
    yield from _journal(stats, counts)
    yield from _readers(stats)


def _contents(log: LogStats) -> Iterator[Metric]:
    yield gauge("log_head", "The last position of the log", log["head"])
    yield gauge("log_first", "The oldest position that is kept", log["first"])
    yield gauge("log_events", "Events in the log", log["events"])
    yield gauge("log_bytes", "Bytes of the log", log["bytes"])
    yield gauge("log_max_bytes", "Bytes that the log may have", log["maxBytes"])
    yield moment("log_oldest", "When the oldest event of the log was logged", log["oldest"])
    yield gauge("log_keep_seconds", "How long an event stays in the log", log["keep"])
    yield gauge("log_partitions", "Partitions of the log in the database", log["partitions"])
    yield gauge(
        "log_inbox_bytes", "Bytes of the inbox of the log in the database, with what is numbered", log["inboxBytes"]
    )
    yield moment(
        "log_held_since",
        "Since when locks of others have kept the tables of the log from being cleaned up",
        log["heldSince"],
    )


def _engine(log: LogStats, counts: Counts) -> Iterator[Metric]:
    engine = counts.engine
    yield one_of("log_engine", "1 for where the log is", "engine", ENGINES, log["engine"])
    yield one_of("log_state", "1 for the state of the log", "state", STATES, log["state"])
    yield gauge(
        "log_fallback", "1 if the log is in memory because the database has none that can be used", int(log["fallback"])
    )
    yield gauge("publishes_waiting", "Publishes that wait for the log", log["waiting"])
    yield gauge("publishes_waiting_bytes", "Bytes of them", log["waitingBytes"])
    yield plain(
        "publishes_refused", "Publishes that waited for the log too long, or in too large a number", log["refused"]
    )
    yield plain("log_steps", "Numbering steps", log["steps"])
    yield plain("log_numbered", "Events that got a position in a numbering step", log["numbered"])
    yield plain("log_reads", "Reads of the log in the database", log["reads"])
    yield gauge("log_reads_waiting", "Reads of the log in the database that have no answer yet", log["readsWaiting"])
    yield histogram("log_step_seconds", "How long the numbering steps took", engine.step_seconds)
    yield histogram(
        "log_lag_seconds", "From dcm_ws.publish() in the database to the delivery of the event", engine.lag_seconds
    )


def _journal(stats: StatsReport, counts: Counts) -> Iterator[Metric]:
    journal = stats.get("journal")
    yield moment(
        "journal_last_flush",
        "When what agents are owed was last written to the database",
        None if journal is None else journal["lastFlush"],
    )
    yield gauge(
        "journal_pending_agents",
        "Agents with changes that are not in the database yet",
        0 if journal is None else journal["pending"],
    )
    yield gauge("journal_rows", "Rows of the journal", 0 if journal is None else journal["rows"])
    yield plain("journal_flushes", "Times that the journal was written", counts.journal.flushes)
    yield plain("journal_failures", "Times that the journal could not be written", counts.journal.failures)
    yield histogram("journal_flush_seconds", "How long it took to write the journal", counts.journal.flush_seconds)


def _readers(stats: StatsReport) -> Iterator[Metric]:
    log, letters, keys = stats["log"], stats["deadLetters"], stats["keys"]
    yield gauge("clients_catching_up", "Clients that catch up with the log", log["catchingUp"])
    yield gauge("log_behind", "Events of the log that the slowest client has not passed yet", log["behind"])
    yield gauge("deliveries_owed", "Deliveries that clients and agents owe", log["owed"])
    yield plain("log_replays", "Times that a client began to catch up", log["replays"])
    yield plain("log_gaps", "Times that a client was told of a gap", log["gaps"])
    yield plain("log_takeovers", "Connections that took over what their agent owed", log["takeovers"])
    yield gauge("dead_letters", "Dead letters that are kept", letters["kept"])
    yield gauge("dead_letter_bytes", "Bytes of the dead letters", letters["bytes"])
    yield plain("dead_letters_died", "Events that became dead letters", letters["died"])
    yield plain("dead_letters_poison", "Those of them that were sent too often over returns", letters["poison"])
    yield plain("dead_letters_redriven", "Dead letters that were sent again", letters["redriven"])
    yield gauge("publish_keys", "Keys of publishes that are remembered", keys["remembered"])
    yield plain("publish_duplicates", "Publishes that repeated one with the same key", keys["duplicates"])
    tokens = stats["tokenKeys"]
    yield plain("token_key_fetches", "Times that the keys of tokens were fetched", tokens["fetches"])
    yield plain("token_key_failures", "Those of them that failed", tokens["failures"])
    yield plain("token_key_refused", "Unknown keys of tokens that were not fetched, by the limits", tokens["refused"])
