"""
scripts/mutate: what it prints, and which modules it takes.  The mutants themselves take too long for a test.
"""

from __future__ import annotations

import json
import runpy
import sqlite3
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "mutate"))
DIFF = "--- mutation diff ---\n--- a/m.py\n+++ b/m.py\n@@ -1,2 +1,2 @@\n same\n-    x < 1\n+    x <= 1\n"


def dumped(outcome: str, tests: str | None = None) -> str:
    """
    What Cosmic Ray says of a mutant that was tried.
    """
    mutation = {"operator_name": "core/ReplaceComparisonOperator_Lt_LtE", "start_pos": [7, 4]}
    return json.dumps([{"mutations": [mutation]}, {"worker_outcome": outcome, "test_outcome": tests, "diff": DIFF}])


def test_modules_exist() -> None:
    """
    It takes no module that is gone or renamed.
    """
    assert [name for name in SCRIPT["MODULES"] if not (ROOT / "dcm_ws" / f"{name}.py").is_file()] == []
    assert [name for name in SCRIPT["RANDOM"] if not (ROOT / "tests" / "core" / f"{name}.py").is_file()] == []


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    """
    It counts the mutants that were tried, and shows the change of each that survives.
    """
    pending = json.dumps([{"mutations": []}, None])
    lines = [dumped("skipped"), *[dumped("normal", "killed")] * 2, dumped("normal", "survived"), pending]
    SCRIPT["report"]("core/x", "\n".join(lines))
    assert capsys.readouterr().out.splitlines() == [
        "core/x: 3 mutants, 2 killed, 66.7 %",
        "  line 7, ReplaceComparisonOperator_Lt_LtE",
        "    -    x < 1",
        "    +    x <= 1",
    ]


def test_module_without_mutants(capsys: pytest.CaptureFixture[str]) -> None:
    """
    A module in which nothing can be changed is no error.
    """
    SCRIPT["report"]("core/x", dumped("skipped"))
    assert capsys.readouterr().out == "core/x: 0 mutants, 0 killed, 0.0 %\n"


def test_sample(tmp_path: Path) -> None:
    """
    A sample has as many mutants as were asked for, the same ones each time, and none that is left out anyway.
    """

    def sampled(number: int, most: int) -> set[tuple[str, int]]:
        session = tmp_path / f"{number}.sqlite"
        connection = sqlite3.connect(session)
        connection.executescript(
            "create table work_items (job_id); create table work_results (job_id);"
            " create table mutation_specs (job_id, operator_name, operator_args, occurrence)"
        )
        for occurrence in range(50):
            # Cosmic Ray chooses another id each time
            job = f"{number * 7919 % 101}-{occurrence * number}"
            connection.execute("insert into work_items values (?)", (job,))
            connection.execute("insert into mutation_specs values (?, 'core/x', '{}', ?)", (job, occurrence))
            if occurrence < 10:
                connection.execute("insert into work_results values (?)", (job,))
        connection.commit()
        SCRIPT["sample"](session, "core/x", most)
        left = connection.execute(
            "select operator_name, occurrence from mutation_specs join work_items using (job_id)"
            " where job_id not in (select job_id from work_results)"
        ).fetchall()
        connection.close()
        return set(left)

    first = sampled(1, 15)
    assert len(first) == 15 and min(occurrence for _, occurrence in first) >= 10
    assert sampled(2, 15) == first
    assert len(sampled(3, 1000)) == 40
