"""`.ci/programs.sh` never fails and says in a line what it could not install, whatever the machine is like."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / ".ci" / "programs.sh"
ALL_FINE = "exit 0"
NO_NETWORK = "echo 'W: warned'; echo 'E: no such host'; exit 100"
NO_CHROMIUM = 'case "$*" in *"install"*chromium*) echo "E: held packages"; exit 100;; esac'


@pytest.fixture
def call(tmp_path):
    """Return a function that calls the script where only these programs are: their names and what they do."""

    def called(**programs: str) -> list[str]:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in ("bash", "env", "timeout", "mktemp", "grep", "rm", "sleep"):
            (folder / name).symlink_to(shutil.which(name))
        for name, body in programs.items():
            (folder / name.replace("_", "-")).write_text(f"#!{shutil.which('bash')}\n{body}\n")
            (folder / name.replace("_", "-")).chmod(0o755)
        environment = {"PATH": str(folder), "PROGRAMS_SECONDS": "1", "TMPDIR": str(tmp_path)}
        done = subprocess.run([str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return called


def test_nothing_is_done_where_both_are(call):
    assert call(google_chrome="exit 1", pdflatex="exit 1", apt_get="echo called") == []


@pytest.mark.parametrize(
    ("programs", "reason"),
    [
        ({"id": "echo 0"}, "no apt-get"),
        ({"id": "echo 1000", "apt_get": ALL_FINE}, "not root"),
        ({"id": "echo 0", "apt_get": NO_NETWORK}, "apt-get update: E: no such host"),
        ({"id": "echo 0", "apt_get": "sleep 20"}, "apt-get update: not done in 1 s"),
    ],
)
def test_the_reason_is_one_line(call, programs, reason):
    packages = "chromium texlive-latex-base texlive-latex-recommended"
    assert call(**programs) == [f"programs: without {packages}, tests that need them are skipped: {reason}"]


def test_each_is_tried_by_itself(call):
    log = 'echo "$*" >> "$TMPDIR/calls"; '
    told = call(id="echo 0", apt_get=log + NO_CHROMIUM)
    assert told == ["programs: no chromium: apt-get install: E: held packages"]


def test_what_is_installed_needs_no_line(call, tmp_path):
    assert call(id="echo 0", apt_get='echo "$*" >> "$TMPDIR/calls"', pdflatex="exit 0") == []
    assert [line.split()[-1] for line in (tmp_path / "calls").read_text().splitlines()] == ["update", "chromium"]
