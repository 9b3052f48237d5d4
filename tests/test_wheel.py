"""What is uploaded: sdist and wheel are whole and valid, and from the wheel, outside the checkout, every step runs."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("alignscape", "training", "landscape", "robustness", "reports")


def run(*command: str, cwd: Path, path: Path | None = None) -> str:
    """Give a command in ``cwd``; what is installed in ``path`` comes first, and no checkout is on the path."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    variables.pop("PYTHONPATH", None)
    if path is not None:
        variables["PYTHONPATH"] = str(path)
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The folder of the sdist and the wheel that `python -m build` makes."""
    for name in ("build", "hatchling"):
        pytest.importorskip(name, reason=f"{name} is not installed (extra `test`)")
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT), cwd=folder)
    return folder


def tracked(*folders: str) -> set[str]:
    """Return the files that git knows below ``folders``."""
    found = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def test_what_is_uploaded_is_whole_and_valid(dist):
    """The wheel is the packages, the sdist the whole project, and an index would take both."""
    wheel, sdist = next(dist.glob("*.whl")), next(dist.glob("*.tar.gz"))
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == tracked(*PACKAGES)  # modules, stubs, py.typed, templates
    with tarfile.open(sdist) as archive:
        assert tracked() <= {name.partition("/")[2] for name in archive.getnames()}
    pytest.importorskip("twine", reason="twine is not installed (extra `test`)")
    assert run("-m", "twine", "check", "--strict", str(wheel), str(sdist), cwd=dist).count("PASSED") == 2


@pytest.mark.slow
def test_the_wheel_works_in_another_folder(dist, tmp_path):
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
    (wheel,) = dist.glob("*.whl")
    there = tmp_path / "installed"
    run(*pip, "install", "--no-deps", "--target", str(there), str(wheel), cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = "import training, reports; print(training.__file__, reports.__file__)"
    assert run("-c", where, cwd=elsewhere, path=there).count(str(there)) == 2
    analyze = ("-m", "reports.cli")
    assert "hessian" in run(*analyze, "--help", cwd=elsewhere, path=there)
    flags = ["--hidden", "8", "--epochs", "1", "--train-size", "100", "--quiet"]
    run(*analyze, "train", *flags, "--out", "run", cwd=elsewhere, path=there)
    run(*analyze, "hessian", "run", "--k", "1", "--samples", "20", "--quiet", cwd=elsewhere, path=there)
    run(*analyze, "report", "run", "--quiet", cwd=elsewhere, path=there)
    assert (elsewhere / "run" / "index.html").stat().st_size > 10_000
