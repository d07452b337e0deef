"""
Fuzzes one target for a while: C{python -m tests.fuzz.run TARGET --seconds N} (needs the extra C{fuzz}).

It begins with the kept corpus, and puts what it finds into a folder of its own.  With C{--keep} the corpus is then made
again from both: the shortest input for each thing that any of them does, a crash included.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.corpus import corpus, corpus_folder, distilled, keep
from tests.fuzz.targets import TARGETS

DICTIONARY = Path(__file__).with_name("dictionary.txt")


def main() -> int:
    """
    The exit status: 0 where nothing crashed.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    parser.add_argument("--max-length", type=int, default=4096)
    parser.add_argument("--findings", type=Path, help="folder for what is found; default: a temporary one")
    parser.add_argument("--keep", action="store_true", help="make the corpus again")
    choice = parser.parse_args()
    findings = choice.findings or Path(tempfile.mkdtemp(prefix=f"fuzz-{choice.target}-"))
    (findings / "inputs").mkdir(parents=True, exist_ok=True)
    status = fuzz(choice.target, findings, choice.seconds, choice.seed, choice.max_length)
    if choice.keep:
        target = TARGETS[choice.target]
        paths = (*corpus(choice.target), *(findings / "inputs").iterdir(), *findings.glob("crash-*"))
        candidates = [path.read_bytes() for path in paths]
        kept = keep(choice.target, distilled(target, candidates))
        print(f"corpus: {kept} inputs kept of {len(candidates)}")
    return status


def fuzz(target: str, findings: Path, seconds: int, seed: int, max_length: int) -> int:
    """
    Run the engine and print its figures; answers 1 where it crashed.
    """
    options = {
        "max_total_time": seconds,
        "seed": seed,
        "max_len": max_length,
        "timeout": 10,
        "rss_limit_mb": 2048,
        "print_final_stats": 1,
        "dict": DICTIONARY,
        "artifact_prefix": f"{findings}/",
    }
    command = [sys.executable, "-m", "tests.fuzz.engine", target]
    command += [f"-{name}={value}" for name, value in options.items()]
    command += [str(findings / "inputs"), str(corpus_folder(target))]
    began = time.monotonic()
    log = findings / "log.txt"
    with log.open("wb") as output:
        ended = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    text = log.read_text(errors="replace")
    executions = re.findall(r"stat::number_of_executed_units: (\d+)", text)
    coverage = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", text)
    crashes = sorted(path.name for path in findings.glob("*-*") if path.is_file())
    print(f"{target}: {executions[-1] if executions else '?'} executions in {time.monotonic() - began:.0f} s")
    if coverage:
        first, last = coverage[0], coverage[-1]
        print(f"coverage {first[0]} -> {last[0]}, features {first[1]} -> {last[1]}, inputs {last[2]}")
    print(f"crashes: {', '.join(crashes) or 'none'}; everything is in {findings}")
    if ended and not crashes:
        print(text[-3000:])
    return int(ended != 0)


if __name__ == "__main__":
    sys.exit(main())
