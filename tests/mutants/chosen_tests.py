"""Which tests run a line, and how long they take: from one run of the suite under coverage."""

import os
import subprocess
import sys
import xml.etree.ElementTree as xml
from collections import defaultdict
from pathlib import Path

from coverage import CoverageData

BUDGET = 90.0  # seconds of tests that a mutant gets at first


class ChosenTests:
    """The tests for a place in the source.

    Args:
        root: the checkout.
        folder: where the record of the covered run is kept; made anew when a source or test is newer.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        if not _is_current(root, folder / "times.xml"):
            _record(root, folder)
        self.data = CoverageData(str(folder / "coverage"))
        self.data.read()
        self.seconds = _seconds(folder / "times.xml")

    def of(self, path: str, first: int, last: int) -> list[str]:
        """Those that run one of the lines, or, if it runs on import, any of the file; all, if there are none.

        Quick ones come first, one of each test function before a second one's parameters.
        """
        lines = self.data.contexts_by_lineno(path)
        near = [lines[line] for line in range(first, last + 1) if line in lines]
        ids = _ids(near) if near and not any("" in contexts for contexts in near) else set()
        ids = ids or _ids(lines.values()) or self.seconds.keys()
        by_function = defaultdict(list)
        for test in sorted(ids, key=lambda test: (self.seconds.get(test, 1.0), test)):
            by_function[test.partition("[")[0]].append(test)
        turns = [(turn, test) for tests in by_function.values() for turn, test in enumerate(tests)]
        return [test for turn, test in sorted(turns, key=lambda t: (t[0], self.seconds.get(t[1], 1.0)))]

    def within(self, tests: list[str], budget: float = BUDGET) -> list[str]:
        """The first of `tests`, as many as take `budget` seconds, at least one."""
        spent, kept = 0.0, []
        for test in tests:
            spent += self.seconds.get(test, 1.0)
            if kept and spent > budget:
                break
            kept.append(test)
        return kept

    def time(self, tests: list[str]) -> float:
        """Their seconds together."""
        return sum(self.seconds.get(test, 1.0) for test in tests)


def _is_current(root: Path, times: Path) -> bool:
    if not times.is_file():
        return False
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=root, capture_output=True, text=True, check=True
    )
    return all((root / file).stat().st_mtime <= times.stat().st_mtime for file in tracked.stdout.split())


def _record(root: Path, folder: Path) -> None:
    """Run the suite once; which lines each test runs, and its time."""
    folder.mkdir(parents=True, exist_ok=True)
    print("running the suite once, under coverage", flush=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "--dist",
        "worksteal",
        "-p",
        "no:cacheprovider",
    ]
    command += ["--cov", "--cov-context=test", "--cov-report=", f"--junitxml={folder / 'times.xml'}"]
    environment = {**os.environ, "COVERAGE_FILE": str(folder / "coverage")}
    done = subprocess.run(command, cwd=root, env=environment, check=False)
    if done.returncode:
        (folder / "times.xml").unlink(missing_ok=True)
        raise SystemExit("mutants need a suite that passes")


def _seconds(times: Path) -> dict[str, float]:
    found = {}
    for case in xml.parse(times).iter("testcase"):
        file = case.get("classname", "").replace(".", "/") + ".py"
        found[f"{file}::{case.get('name')}"] = float(case.get("time", 1))
    return found


def _ids(contexts) -> set[str]:
    return {context.rpartition("|")[0] for each in contexts for context in each if context}
