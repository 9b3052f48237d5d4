"""What installed packages add is listed without importing them, and named in one line where it is broken."""

import sys
from pathlib import Path

import pytest

from alignscape import plugins
from alignscape.errors import InputError


def install(folder: Path, name: str, version: str, entries: str, modules: dict[str, str]) -> None:
    """Lay a distribution out in ``folder`` as an installer does."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entries)
    for file, text in modules.items():
        (folder / file).write_text(text)


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    plugins.warn_once.cache_clear()
    return tmp_path


def test_packages_are_listed_but_not_imported(site):
    entries = (
        "[alignscape.rules]\nhebb = plugged_a:Hebb\nbroken = plugged_b:Rule\n[alignscape.attacks]\nx = plugged_a:X"
    )
    install(site, "my-package", "0.1", entries, {"plugged_a.py": "Hebb = 7\n", "plugged_b.py": "1 / 0\n"})
    found = plugins.installed("alignscape.rules")
    assert {name: plugins.source(entry) for name, entry in found.items()} == dict.fromkeys(
        ("broken", "hebb"), "my-package 0.1"
    )
    assert list(plugins.installed("alignscape.attacks")) == ["x"]
    assert plugins.installed("alignscape.analyses") == {}
    assert "plugged_a" not in sys.modules
    assert plugins.load(found["hebb"], flag="--rule") == 7
    with pytest.raises(InputError, match=r"--rule broken \(plugged_b:Rule of my-package 0.1\): ZeroDivisionError"):
        plugins.load(found["broken"], flag="--rule")


def test_names_that_two_have(site):
    install(site, "a-package", "1", "[alignscape.rules]\nfa = plugged_c:A\nhebb = plugged_c:B", {})
    install(site, "b-package", "2", "[alignscape.rules]\nhebb = plugged_d:B", {})
    with pytest.warns(UserWarning, match="is not used") as caught:
        found = plugins.installed("alignscape.rules", {"fa"})
    assert {name: entry.value for name, entry in found.items()} == {"hebb": "plugged_c:B"}
    assert sorted(str(w.message) for w in caught) == [
        "fa of a-package 1 is not used: alignscape has a fa of its own",
        "hebb of b-package 2 is not used: a-package 1 has one too",
    ]
