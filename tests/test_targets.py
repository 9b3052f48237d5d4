"""Targets: complete, sharing their runs, made once, and made anew only where something they depend on has changed."""

import importlib
import json
import re
import subprocess
import sys

import chromium
import pandas as pd
import pytest

from alignscape.errors import InputError
from reports.cli import main
from reports.paper import PROFILES, TARGETS
from reports.paper.networks import sweep
from reports.paper.reproduction import plan
from training.store.jobs import TrainJob
from training.store.run_store import RunStore

ROWS = [
    *(f"fig{n}" for n in range(1, 8)), *(f"figS{n}" for n in range(1, 17)), "tableS1", "tableS2", "tableS3", "claims",
]  # fmt: skip
# Everything as small as it can be without losing a panel.
TINY = [
    "hidden=12,12", "epochs=2", "seeds=0,1", "angles=0,30,60", "snapshot_every=10", "checkpoint_every=1",
    "plane_points=5", "curvature_samples=60", "trace_probes=4", "spectrum_steps=8", "surface_points=5",
    "attack_samples=40", "attack_steps=2", "strong_steps=2", "corrupted_images=40", "trainability_epochs=1",
    "masking_samples=20", "auto_steps=1", "queries=5", "depths=2", "shown_depths=2",
    "sizes=100", "shown_sizes=100", "network_train_size=64", "network_epochs=1", "dataset_epochs=2",
    "dataset_angles=0", "claimed=",
]  # fmt: skip


def figures(tmp_path, *words, settings=TINY):
    command = ["figures", "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out"), "--quiet", *words]
    return main([*command, *(["--set", *settings] if settings else [])])


def keys(profile, tmp_path):
    store = RunStore(tmp_path / "store")
    return {one.target.name: one.key for one in plan(list(TARGETS.values()), profile, None, store, tmp_path / "out")}


def test_every_row_of_the_paper_is_a_target():
    assert list(TARGETS) == ROWS


@pytest.mark.parametrize("name", ROWS)
def test_what_a_target_names_exists(name):
    target = TARGETS[name]
    module, _, function = target.draw.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    for profile in (make() for make in PROFILES.values()):
        sources = target.sources(profile, None)
        assert all(sources.values()), f"{profile.name} has no networks for a table"
        json.dumps([target.options(profile), [dict(one.columns) for parts in sources.values() for one in parts]])


def test_targets_share_their_runs(tmp_path):
    profile = PROFILES["paper"]()
    store = RunStore(tmp_path / "store")

    def runs(name):
        plans = plan([TARGETS[name]], PROFILES["smoke"](), None, store, tmp_path)
        return {job.key(store) for job in plans[0].jobs() if isinstance(job, TrainJob)}

    assert runs("fig1") == runs("figS1") == runs("figS2") < runs("fig4")
    assert runs("fig4") == runs("fig5") == runs("fig6") == runs("fig7") == runs("figS10") | runs("figS13")
    assert runs("figS5") | runs("figS6") | runs("figS7") == runs("fig3")
    assert runs("fig3") < runs("claims")
    assert len(sweep(profile, None)) == (1 + 9 + 1) * len(profile.seeds)  # FA is IFA at 90 degrees


def test_he_scales_are_the_run_without_scales(tmp_path):
    from reports.paper.networks import depths, variances

    profile = PROFILES["smoke"]().changed(["depths=3", "shown_depths=3"])  # two hidden layers
    he = [one for one in variances(profile, None) if one.columns["forward"] == one.columns["backward"] == 2**0.5]
    he = [one for one in he if one.columns["optimiser"] == "adam"]
    assert {one.train for one in he} <= {one.train for one in depths(profile, None)}


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("attack_samples=100", {"fig7", "figS12", "figS13", "figS14", "claims"}),
        ("surface_points=9", {"fig5", "figS10", "claims"}),
        ("plane_points=9", {"fig2"}),
        ("equal_loss=1.2", {"figS16", "tableS3"}),
        ("patience=2", {"figS4", "tableS2", "claims"}),
        ("surface_split=train", {"fig5", "figS10"}),
        ("sgd_lr=0.1", {"fig3", "figS5", "claims"}),
        ("shown_sizes=100", {"figS7"}),
        ("network_epochs=1", {"figS3", "tableS1", "claims"}),
        ("trainability_epochs=2", {"fig3", "figS5", "figS6", "figS7", "claims"}),
    ],
)
def test_a_change_concerns_what_depends_on_it_and_nothing_else(tmp_path, setting, changed):
    profile = PROFILES["smoke"]()
    before, after = keys(profile, tmp_path), keys(profile.changed([setting]), tmp_path)
    different = {name for name in before if before[name] != after[name]}
    if setting.startswith("surface"):
        changed = changed - {"claims"}  # no claim is about the surface
    assert different == changed


def test_the_profiles_name_changes_nothing(tmp_path):
    import dataclasses

    profile = PROFILES["smoke"]()
    assert keys(profile, tmp_path) == keys(dataclasses.replace(profile, name="other"), tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    assert figures(folder, "--only", "fig1", "fig2", "fig6", "fig7", "tableS2", "claims", "--latex") == 0
    return folder


def test_each_target_leaves_figure_table_and_record(made):
    out = made / "out"
    for stem in ("fig1", "fig2", "fig6", "fig7", "fig7-feedback", "fig7-feedback-forward"):
        assert (out / f"{stem}.pdf").read_bytes().startswith(b"%PDF")
        assert (out / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    for stem in ("fig1", "fig7-feedback", "tableS2", "tableS2-runs", "claims"):
        assert len(pd.read_csv(out / f"{stem}.csv"))
        record = json.loads((out / f"{stem}.json").read_text())
        assert record["profile"]["epochs"] == 2
        assert record["runs"]
    assert r"\toprule" in (out / "claims.tex").read_text()
    assert not list(out.glob(".*"))


def test_the_page_shows_them(made):
    page = (made / "out" / "index.html").read_text()
    for name in ("fig1", "fig7", "tableS2", "claims"):
        assert f'id="target-{name}"' in page
    assert page.count('<figure class="found">') == 6  # of figure 7, one for each gradient
    assert "The paper" in page


@pytest.mark.skipif(chromium.find() is None, reason="needs a chromium or chrome on the PATH")
def test_the_page_works_in_a_browser(made):
    with chromium.Page(chromium.find()) as page:
        page.open(made / "out" / "index.html")
        page.evaluate("document.querySelectorAll('img').forEach((image) => (image.loading = 'eager'))")
        page.wait_for("[...document.images].every((image) => image.complete && image.naturalWidth > 500)")
        first = "document.querySelector('#target-claims table')"  # the second says what seeds can decide
        page.evaluate(f"[...{first}.querySelectorAll('th button')].at(-1).click()")
        verdicts = page.evaluate(f"[...{first}.tBodies[0].rows].map((row) => [...row.cells].at(-1).dataset.value)")
        assert verdicts == sorted(verdicts)
        assert len(verdicts) == len(pd.read_csv(made / "out" / "claims.csv"))
        links = page.evaluate("[...document.querySelectorAll('main a')].map((a) => a.getAttribute('href'))")
        assert all((made / "out" / link).is_file() for link in links if not link.startswith("#"))
        assert page.errors == []
        assert {url.split(":")[0] for url in page.requests} <= {"file", "data", "blob"}


@pytest.mark.skipif(chromium.find() is None, reason="needs a chromium or chrome on the PATH")
def test_the_page_fits_a_phone(made):
    with chromium.Page(chromium.find(), width=390, height=844) as page:
        page.open(made / "out" / "index.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_report_of_the_folder_writes_latex_too(made, capsys):
    assert main(["report", str(made / "out"), "--quiet", "--latex"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert str(made / "out" / "tableS2.tex") in printed
    body = (made / "out" / "claims.tex").read_text().rpartition(r"\endlastfoot")[2]  # its head stands on every page
    assert body.count(r"\\") == len(pd.read_csv(made / "out" / "claims.csv"))


def test_a_second_call_computes_and_draws_nothing(made, capsys, monkeypatch):
    import reports.paper.reproduction as reproduction
    import training.store.cluster

    def forbidden(*args, **kwargs):
        raise AssertionError("nothing should be done")

    monkeypatch.setattr(training.store.cluster, "execute", forbidden)
    monkeypatch.setattr(reproduction, "draw", forbidden)
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}
    assert figures(made, "--only", "fig1", "fig2", "fig6", "fig7", "tableS2", "claims", "--latex") == 0
    assert "nothing to compute" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()} == before


def test_another_figure_of_the_same_runs_trains_nothing(made, capsys):
    assert figures(made, "--only", "fig4") == 0
    assert "runs: 0 computed, 10 reused" in capsys.readouterr().out


def test_latex_can_be_asked_for_later(made):
    text = (made / "out" / "tableS2.tex").read_text()
    (made / "out" / "tableS2.tex").unlink()
    assert figures(made, "--only", "tableS2", "--latex") == 0
    assert (made / "out" / "tableS2.tex").read_text() == text


def test_a_damaged_result_is_made_again(made, capsys):
    (made / "out" / "fig1.png").write_bytes(b"half a pic")
    assert figures(made, "--only", "fig1") == 0
    assert "runs: 0 computed" in capsys.readouterr().out
    assert (made / "out" / "fig1.png").read_bytes().startswith(b"\x89PNG")


def test_a_dry_run_counts_and_does_nothing(made, tmp_path, capsys):
    assert figures(made, "--only", "fig1", "fig2", "--dry-run") == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert lines["fig1"] == ["6", "6", "0", "0", "0", "0", "up", "to", "date"]
    assert lines["fig2"][:6] == ["6", "6", "0", "27", "27", "0"]  # 3 paths; 3 rules x 2 seeds: 1 length, 3 epochs
    assert figures(tmp_path, "--only", "fig1", "--dry-run") == 0
    assert re.search(r"missing:\n  run digits-bp-\S*seed0\n", capsys.readouterr().out)
    assert not list(tmp_path.rglob("*.pt"))
    assert not (tmp_path / "out").exists()


def test_a_call_that_finds_everything_imports_nothing_heavy(made):
    script = (
        "import sys; from reports.cli import main\n"
        f"code = main(['figures', '--store', {str(made / 'store')!r}, '--out', {str(made / 'out')!r}, '--only', 'fig2',"
        f" '--set', *{TINY!r}])\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr


def test_an_unknown_target_is_refused_with_the_known_ones(tmp_path, capsys):
    assert figures(tmp_path, "--only", "fig8") == 2
    assert "unknown target fig8; known: fig1, fig2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "setting", ["epochs", "epoch=3", "epochs=many", "angles=30", "shown_eps=0.7", "claimed=all", "seeds="]
)
def test_bad_settings_are_one_line(tmp_path, capsys, setting):
    assert figures(tmp_path, settings=[setting]) == 2
    error = capsys.readouterr().err
    assert error.startswith("analyze: error: ")
    assert error.count("\n") == 1


def test_settings_are_parsed_by_kind():
    profile = PROFILES["smoke"]().changed(
        ["epochs=3", "angles=0,30,60,7.5", "attack_samples=all", "dataset=mnist", "corrupted_images=5", "networks=a,b"]
    )
    assert (profile.epochs, profile.angles, profile.attack_samples) == (3, (0.0, 30.0, 60.0, 7.5), None)
    assert (profile.dataset, profile.corrupted_images, profile.networks) == ("mnist", 5, ("a", "b"))


def test_missing_data_skip_a_target_and_the_others_are_made(tmp_path, capsys):
    settings = [*TINY, "datasets=digits,svhn"]
    words = ["--only", "fig1", "figS4", "--data-root", str(tmp_path / "nowhere")]
    with pytest.raises(SystemExit) as ended:
        figures(tmp_path, *words, settings=settings)
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert "figS4" in error
    assert "train_32x32.mat" in error
    assert (tmp_path / "out" / "fig1.png").is_file()
    assert not (tmp_path / "out" / "figS4.png").exists()


def test_claims_do_without_data_sets_that_are_not_there(tmp_path):
    profile = PROFILES["smoke"]().changed(["datasets=digits,svhn"])
    store = RunStore(tmp_path / "store")
    claims, figs4 = plan([TARGETS["claims"], TARGETS["figS4"]], profile, tmp_path, store, tmp_path / "out")
    assert claims.state == "to make"
    assert "datasets" not in claims.sources
    assert "train_32x32.mat" in claims.left_out
    assert figs4.state == "impossible"
    whole = plan([TARGETS["claims"]], PROFILES["smoke"](), tmp_path, store, tmp_path / "out")[0]
    assert "datasets" in whole.sources
    assert whole.left_out == ""
    assert whole.key != claims.key


def test_a_target_whose_runs_fail_is_reported(tmp_path, capsys):
    with pytest.raises(SystemExit):
        figures(tmp_path, "--only", "figS3", settings=[*TINY, "networks=nosuchnet", "network_lrs=0.1"])
    assert "unknown model 'nosuchnet'" in capsys.readouterr().err


def test_numbers_out_of_range_are_found_before_anything_runs(tmp_path):
    with pytest.raises(InputError):
        PROFILES["smoke"]().changed(["large_scale=9"])
