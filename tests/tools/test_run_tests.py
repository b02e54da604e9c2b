"""The totals of `make test` count what the reports say, and a dead binary is a failure."""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import run_tests  # noqa: E402

GTEST = """<testsuites><testsuite name="Room">
  <testcase name="Good" status="run" result="completed" classname="Room"/>
  <testcase name="Bad" status="run" result="completed" classname="Room"><failure message="x"/></testcase>
  <testcase name="Absent" status="run" result="skipped" classname="Room">
    <skipped message="model.cpp:12&#x0A;no model here&#x0A;"/></testcase>
  <testcase name="DISABLED_Off" status="notrun" result="suppressed" classname="Room"/>
</testsuite></testsuites>"""


def fake_ctest(tmp_path, monkeypatch, status, report):
    """A ctest that reports one binary, tests/room/file.cpp, with this status."""
    (tmp_path / "gtest").mkdir()
    if report:
        (tmp_path / "gtest" / "room_file.xml").write_text(report)
    (tmp_path / "ctest.xml").write_text(
        f'<testsuite><testcase name="room/file" status="{status}"/></testsuite>')
    monkeypatch.setattr(run_tests.subprocess, "run", lambda *args, **kwargs: None)
    tally = run_tests.Tally()
    run_tests.run_ctest(tmp_path, tmp_path, tally)
    return tally


def test_cases_are_counted_once(tmp_path, monkeypatch):
    tally = fake_ctest(tmp_path, monkeypatch, "fail", GTEST)
    assert tally.passed == 1
    assert tally.failed == ["room/file: Room.Bad"]
    assert tally.skipped == [("room/file: Room.Absent", "model.cpp:12 no model here")]


def test_a_binary_that_dies_is_one_failure(tmp_path, monkeypatch):
    tally = fake_ctest(tmp_path, monkeypatch, "fail", "")
    assert (tally.passed, len(tally.failed)) == (0, 1)


def test_no_tests_at_all_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(run_tests.subprocess, "run", lambda *args, **kwargs: None)
    tally = run_tests.Tally()
    run_tests.run_ctest(tmp_path, tmp_path, tally)
    assert len(tally.failed) == 1
