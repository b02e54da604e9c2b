#!/usr/bin/python3
"""Runs every test of a built tree and ends with one line: N passed, N failed, N skipped.

usage: run_tests.py BUILD_FOLDER

The parts: GoogleTest binaries through ctest, tests/cli and tests/tools through pytest, and the layer
check. A case counts once; a binary that dies without a report counts as one failed case. What was
skipped is listed with its reason, because a skipped test shows nothing.
"""
import collections
import os
import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTEST_FOLDERS = ("tests/cli", "tests/tools")


class Tally:
    def __init__(self):
        self.passed = 0
        self.failed = []   # names
        self.skipped = []  # (name, reason)

    def add_case(self, name, case):
        """Counts one <testcase> of a GoogleTest or pytest report."""
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            self.failed.append(name)
        elif skipped is not None:
            self.skipped.append((name, " ".join((skipped.get("message") or "").split())))
        elif case.get("status") != "notrun":
            self.passed += 1


def cases_of(report):
    try:
        return list(xml.parse(report).iter("testcase"))
    except (OSError, xml.ParseError):
        return []


def run_ctest(build, reports, tally):
    """All ctest tests; each binary leaves its own report in `reports`."""
    summary = reports / "ctest.xml"
    environment = dict(os.environ, GTEST_OUTPUT=f"xml:{reports}/gtest/")
    # One binary at a time: each may pin a thread to every core, and some tests watch the clock. The
    # program's own tests are left to run_pytest, which counts their cases.
    subprocess.run(["ctest", "--test-dir", str(build), "--output-on-failure", "--exclude-regex", "^cli/",
                    "--output-junit", str(summary)], env=environment, check=False)
    binaries = cases_of(summary)
    if not binaries:
        tally.failed.append("ctest: no test ran")
    for binary in binaries:
        name = binary.get("name")
        failed_before = len(tally.failed)
        for case in cases_of(reports / "gtest" / f"{name.replace('/', '_')}.xml"):
            tally.add_case(f"{name}: {case.get('classname')}.{case.get('name')}", case)
        if binary.get("status") != "run" and len(tally.failed) == failed_before:
            tally.failed.append(f"{name}: ended with no report of a failed case")


def run_pytest(build, reports, tally):
    folders = [folder for folder in PYTEST_FOLDERS if list((ROOT / folder).glob("test_*.py"))]
    if not folders:
        return
    report = reports / "pytest.xml"
    environment = dict(os.environ, TANDEM_BIN=str(build / "tandem"), PYTHONDONTWRITEBYTECODE="1")
    status = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
                             f"--junitxml={report}", *folders],
                            cwd=ROOT, env=environment, check=False).returncode
    failed_before = len(tally.failed)
    for case in cases_of(report):
        tally.add_case(f"{case.get('classname')}: {case.get('name')}", case)
    if status != 0 and len(tally.failed) == failed_before:
        tally.failed.append(f"pytest: exit code {status} with no failed case")


def run_layer_check(tally):
    print("\nlayers: every include against the table in src/README.md", flush=True)
    if subprocess.run([sys.executable, ROOT / "tools" / "check_layers.py"], check=False).returncode:
        tally.failed.append("tools/check_layers.py")
    else:
        tally.passed += 1


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    build = pathlib.Path(sys.argv[1]).resolve()
    reports = build / "test-results"
    shutil.rmtree(reports, ignore_errors=True)
    (reports / "gtest").mkdir(parents=True)
    tally = Tally()
    run_ctest(build, reports, tally)
    run_pytest(build, reports, tally)
    run_layer_check(tally)

    reasons = collections.Counter(reason for _, reason in tally.skipped)
    for reason, count in reasons.most_common():
        print(f"skipped {count}: {reason or 'no reason given'}")
    for name in tally.failed:
        print(f"FAILED {name}")
    print(f"\n{tally.passed} passed, {len(tally.failed)} failed, {len(tally.skipped)} skipped")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
