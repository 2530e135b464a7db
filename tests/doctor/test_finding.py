"""Findings as lines; checks that fail end alone; answers of programs that are really run."""

import sys

from selftrans.doctor.finding import Answer, findings_of, ok, output_of, warning, wrong
from selftrans.errors import UserError


def test_a_finding_is_a_line_with_what_to_do():
    assert str(ok("Python 3.11.7")) == "ok       Python 3.11.7"
    assert str(warning("little room", "free some")) == "warning  little room; free some"
    assert str(wrong("no room", "free some")) == "wrong    no room; free some"


def test_a_check_that_cannot_be_made_is_a_finding_and_the_next_is_made(tmp_path):
    def unreadable():
        yield ok("first")
        (tmp_path / "nothing").read_text()

    def refused():
        raise UserError("a: found 1; allowed: 2")

    found = list(findings_of([unreadable, refused, lambda: [ok("last")]]))
    assert [finding.level for finding in found] == ["ok", "wrong", "wrong", "ok"]
    assert found[1].what == f"{tmp_path}/nothing: no such file or folder"
    assert found[2].what == "a: found 1; allowed: 2"


def test_programs_answer_or_are_not_here_or_are_not_waited_for():
    assert output_of(["no-such-program-here"]) is None
    assert output_of([sys.executable, "-c", "print('said')"]) == Answer(0, "said\n", "")
    failed = output_of([sys.executable, "-c", "import sys; print('so'); sys.exit('first\\nfatal: last\\n')"])
    assert (failed.code, failed.reason) == (1, "fatal: last")
    assert output_of([sys.executable, "-c", "raise SystemExit(3)"]).reason == "exit code 3"
    slow = output_of([sys.executable, "-c", "import time; time.sleep(60)"], patience=0.5)
    assert (slow.code, slow.reason) == (124, "no answer within 0.5 seconds")
