"""
Runs the Autobahn testsuite's fuzzing client against the service's testee, and judges its report.

C{wstest} ends with status 0 whatever happened, so what counts is the report: each case that was asked for is in it, and
each verdict is one that is expected.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.integration.running import Service

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "compliance-report"
EXPECTATIONS = Path(__file__).with_name("expectations.json")
SETS = {
    "quick": ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"],
    "all": ["*"],
}


def main() -> int:
    """
    The exit status: 0 where all is as expected.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="?", default="quick", choices=SETS)
    parser.add_argument("--compression", choices=("off", "on"), default="on")
    choice = parser.parse_args()
    shutil.rmtree(REPORT, ignore_errors=True)
    testee = Service("--testee", "--no-database", "--compression", choice.compression)
    try:
        run_wstest(testee.port, SETS[choice.cases])
    finally:
        testee.stop()
    return judge(choice.cases)


def run_wstest(port: int, cases: list[str]) -> None:
    """
    The fuzzing client itself; it shows what case it is at.
    """
    REPORT.mkdir()
    spec = REPORT / "fuzzingclient.json"
    spec.write_text(
        json.dumps(
            {
                "outdir": str(REPORT),
                "servers": [{"agent": "dcm-ws", "url": f"ws://127.0.0.1:{port}"}],
                "cases": cases,
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
        )
    )
    subprocess.run([ROOT / ".wstest" / "bin" / "wstest", "-m", "fuzzingclient", "-s", spec], check=True, cwd=REPORT)


def judge(cases: str) -> int:
    """
    Print what came out, and what of it was not expected.
    """
    expected = json.loads(EXPECTATIONS.read_text())
    results = json.loads((REPORT / "index.json").read_text())["dcm-ws"]
    for what in ("behavior", "behaviorClose"):
        counts = Counter(result[what] for result in results.values())
        print(f"{what}: {', '.join(f'{count} {name}' for name, count in sorted(counts.items()))}")
    failed = len(results) != expected["cases"][cases]
    if failed:
        print(f"{len(results)} cases ran, and should have been {expected['cases'][cases]}")
    for case, result in sorted(results.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
        verdicts = result["behavior"], result["behaviorClose"]
        allowed = {"OK", *expected["exceptions"].get(case, ())}
        if not allowed.issuperset(verdicts):
            failed = True
            print(f"case {case}: {', '.join(verdicts)}; expected {', '.join(sorted(allowed))}")
    print(f"{len(results)} cases: {'not as expected' if failed else 'all as expected'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
