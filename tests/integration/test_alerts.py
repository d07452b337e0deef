"""
The alert rules, evaluated by Prometheus' own tool on series of values.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.machine import debian_program

ROOT = Path(__file__).parents[2]
RULES = ROOT / "contrib" / "prometheus-alerts.yml"
MONITORING = ROOT / "docs" / "monitoring.md"

ALERTS = re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.MULTILINE)

SECONDS = 15
"""
Between two samples, of which there are 300 in a series.
"""

AT = "70m"
"""
When the alerts are looked at: after 280 samples.
"""

Series = dict[str, tuple[str, str]]
"""
By name: values at which the alert fires, and values at which it does not, in the notation of Prometheus' unit tests.
"""


def histogram(name: str, bounds: tuple[str, str, str], slow: tuple[int, int, int]) -> Series:
    """
    A histogram of 100 values at each sample: so many in each bucket for the alert; otherwise all are in the first one.
    """
    series = {
        f'{name}_bucket{{le="{bound}"}}': (f"0+{count}x300", "0+100x300")
        for bound, count in zip(bounds, slow, strict=True)
    }
    return {**series, f'{name}_bucket{{le="+Inf"}}': ("0+100x300", "0+100x300")}


CASES: list[tuple[str, Series]] = [
    ("DcmWsDown", {'up{job="dcm-ws"}': ("0x300", "1x300")}),
    ("DcmWsDatabaseDown", {'dcm_ws_database_state{state="down"}': ("1x300", "1x277 0x300")}),
    ("DcmWsDatabaseUnstable", {"dcm_ws_database_reconnects_total": ("0+0.1x300", "0x270 1x300")}),
    ("DcmWsHearsLate", histogram("dcm_ws_database_probe_seconds", ("0.5", "1.0", "2.5"), (90, 98, 100))),
    ("DcmWsGivesUpDeliveries", {"dcm_ws_deliveries_given_up_total": ("0+3x300", "0+1x300")}),
    ("DcmWsPendingGrows", {"dcm_ws_deliveries_pending": ("50000+10x300", "60000x300")}),
    ("DcmWsDeadLetters", {"dcm_ws_dead_letters_died_total": ("0x270 3x300", "3x300")}),
    ("DcmWsEventsMissed", {"dcm_ws_log_gaps_total": ("0x270 1x300", "1x300")}),
    ("DcmWsLogIsFull", {'dcm_ws_limits_hit_total{limit="maxRecentEvents"}': ("0+10x300", "10x300")}),
    ("DcmWsClientsBehind", {"dcm_ws_log_behind": ("20000+10x300", "20000-10x300")}),
    (
        "DcmWsLogDown",
        {
            # it has been down for half a minute, and before that it was connecting
            'dcm_ws_log_state{state="connecting"}': ("1x277 0x300", "0x300"),
            'dcm_ws_log_state{state="down"}': ("0x277 1x300", "0x277 1x300"),
            'dcm_ws_log_state{state="up"}': ("0x300", "1x277 0x300"),
        },
    ),
    (
        "DcmWsLogStandby",
        {
            # one that takes over is a standby for a short time
            'dcm_ws_log_state{state="standby"}': ("1x300", "0x278 1x300"),
            'dcm_ws_log_state{state="down"}': ("0x300", "0x300"),
        },
    ),
    ("DcmWsLogInMemory", {"dcm_ws_log_fallback": ("1x300", "0x300")}),
    ("DcmWsLogLags", histogram("dcm_ws_log_lag_seconds", ("0.0025", "1.0", "2.5"), (90, 98, 100))),
    ("DcmWsPublishesRefused", {"dcm_ws_publishes_refused_total": ("0x270 4x300", "4x300")}),
    (
        "DcmWsLogTooSmall",
        {
            # 95 % full, and the oldest event is an hour old, or as old as it may be and a partition older
            "dcm_ws_log_bytes": ("4080218931x300", "4080218931x300"),
            "dcm_ws_log_max_bytes": ("4294967296x300", "4294967296x300"),
            "dcm_ws_log_oldest_timestamp_seconds": ("-3600+15x300", "-90000+15x300"),
            "dcm_ws_log_keep_seconds": ("86400x300", "86400x300"),
        },
    ),
    (
        "DcmWsLogTooSmall",
        {
            # an hour old, and the log is full, or has room
            "dcm_ws_log_bytes": ("67000000x300", "40000000x300"),
            "dcm_ws_log_max_bytes": ("67108864x300", "67108864x300"),
            "dcm_ws_log_oldest_timestamp_seconds": ("-3600+15x300", "-3600+15x300"),
            "dcm_ws_log_keep_seconds": ("86400x300", "86400x300"),
        },
    ),
    ("DcmWsLogHeld", {"dcm_ws_log_held_since_timestamp_seconds": ("300x300", "900x300")}),
    ("DcmWsInboxGrows", {"dcm_ws_log_inbox_bytes": ("500000000+100000x300", "600000000-100000x300")}),
    (
        "DcmWsJournalLate",
        {
            "dcm_ws_journal_pending_agents": ("5x300", "5x300"),
            # the last time was 45 s ago, or it is written all the time
            "dcm_ws_journal_last_flush_timestamp_seconds": ("0+15x277 4155x300", "0+15x300"),
        },
    ),
    (
        "DcmWsJournalLate",
        {
            # nothing was written for long, and there is something to write, or there is not
            "dcm_ws_journal_pending_agents": ("0x270 1x300", "0x300"),
            "dcm_ws_journal_last_flush_timestamp_seconds": ("60x300", "60x300"),
        },
    ),
    ("DcmWsWorkerRestarts", {"dcm_ws_worker_restarts_total": ("0+0.1x300", "0x270 2x300")}),
    ("DcmWsReactorLags", histogram("dcm_ws_reactor_lag_seconds", ("0.05", "0.1", "0.25"), (90, 98, 100))),
    ("DcmWsSlowClients", {'dcm_ws_limits_hit_total{limit="maxSendBuffer"}': ("0+1x300", "0+0.1x300")}),
    ("DcmWsNearlyFull", {'dcm_ws_limits_hit_total{limit="maxConnections"}': ("0x275 2x300", "2x300")}),
    ("DcmWsRefusesTokens", {'dcm_ws_refusals_total{code="TOKEN_EXPIRED"}': ("0+30x300", "0+10x300")}),
]


def on_instance(series: str, number: int) -> str:
    """
    The series of one of several instances.
    """
    name, _, labels = series.rstrip("}").partition("{")
    return f'{name}{{{labels}{"," if labels else ""}instance="{number}"}}'


@pytest.fixture(scope="module")
def promtool() -> str:
    return debian_program("prometheus", lambda: shutil.which("promtool"))


def test_rules_are_valid(promtool: str) -> None:
    """
    Prometheus accepts the file.
    """
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_alerts_fire(promtool: str, tmp_path: Path) -> None:
    """
    Each alert fires when it should, and only that one; it does not fire at values that are nearly as bad.
    """
    assert {name for name, _ in CASES} == set(ALERTS)
    # all at once, each on an instance of its own: the rules are evaluated at each sample, which takes long
    tests = [
        {
            "interval": f"{SECONDS}s",
            "input_series": [
                {"series": on_instance(name, number), "values": values[calm]}
                for number, (_, series) in enumerate(CASES)
                for name, values in series.items()
            ],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname, instance) (ALERTS{alertstate="firing"})',
                    "eval_time": AT,
                    "exp_samples": [
                        {"labels": f'{{alertname="{alert}", instance="{number}"}}', "value": 1}
                        for number, (alert, _) in enumerate(CASES)
                        if not calm
                    ],
                }
            ],
            "name": "calm" if calm else "firing",
        }
        for calm in (0, 1)
    ]
    file = tmp_path / "tests.json"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": f"{SECONDS}s", "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_runbook_line() -> None:
    """
    docs/monitoring.md says of every alert what it means, what to look at, and what to do.
    """
    rows = re.findall(r"^\| `(DcmWs\w+)` \|(.+)\|(.+)\|(.+)\|$", MONITORING.read_text(), re.MULTILINE)
    assert [row[0] for row in rows] == ALERTS
    assert all(cell.strip() for row in rows for cell in row)
