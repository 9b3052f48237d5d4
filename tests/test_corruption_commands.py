"""``analyze corruptions`` and ``analyze make-cifar10c`` end to end."""

import json
import os
import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torchvision

from reports.cli import main
from reports.commands import make_cifar10c
from robustness.cifar10c import md5_file
from robustness.corruptions import cifar_c, load_frost_textures, small_images
from robustness.generate import make_corrupted_set
from training.data import load_split


def analyze(capsys, *arguments):
    """Return exit status, stdout and stderr."""
    try:
        status = main([*map(str, arguments), "--quiet"])
    except SystemExit as stop:  # argparse's own errors
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refused(result, *words):
    """Check that a command ended as bad input should: status 2, nothing printed, one line that has ``words``."""
    status, out, err = result
    assert (status, out) == (2, "")
    assert err.startswith("analyze: error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of a bp and an fa run on the digits."""
    root = tmp_path_factory.mktemp("runs")
    common = ["--dataset", "digits", "--hidden", "32", "--epochs", "6", "--lr", "3e-3", "--quiet"]
    for rule in ("bp", "fa"):
        assert main(["train", "--rule", rule, "--out", str(root / rule), *common]) == 0
    return root


@pytest.fixture(scope="module")
def digits_c(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "digits-C"
    test = load_split("digits", "test")
    images = test.images.permute(0, 2, 3, 1).numpy()
    make_corrupted_set(images, test.labels.numpy(), folder, definition=small_images())
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Files with 30 images of 32 x 32 and their labels."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    np.save(folder / "photos.npy", rng.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8))
    np.save(folder / "labels.npy", np.arange(30) % 10)
    return folder


def test_tables_sidecars_and_figures(runs, digits_c, tmp_path, capsys):
    options = ["--cifar10c", digits_c, "--baseline", runs / "bp", "--out", tmp_path]
    status, out, err = analyze(capsys, "corruptions", runs / "bp", runs / "fa", *options)
    assert (status, err) == (0, "")
    frame = pd.read_csv(tmp_path / "corruptions.csv")
    assert list(frame.columns[:9]) == [
        "checkpoint", "corruption", "category", "severity", "accuracy", "ci_low", "ci_high", "n_samples", "provenance",
    ]  # fmt: skip
    assert frame.checkpoint.unique().tolist() == [str(runs / "bp"), str(runs / "fa")]
    assert frame.rule.unique().tolist() == ["bp", "fa"]
    assert len(frame) == 2 * (1 + 4 * 5)
    assert ((frame.ci_low <= frame.accuracy) & (frame.accuracy <= frame.ci_high)).all()
    assert set(frame.provenance) == {"clean", "own definition"}
    clean = frame[frame.corruption == "clean"].set_index("rule").accuracy
    recorded = [pd.read_csv(runs / rule / "metrics.csv").test_accuracy.iloc[-1] for rule in ("bp", "fa")]
    assert clean.tolist() == pytest.approx(recorded)
    noise = frame[(frame.rule == "bp") & (frame.corruption == "gaussian_noise")].accuracy
    assert noise.iloc[0] > noise.iloc[-1] + 0.1

    summary = pd.read_csv(tmp_path / "corruptions_summary.csv").set_index(["rule", "quantity"])
    assert summary.loc[[("bp", "mce")], "value"].item() == 1
    assert summary.loc[[("bp", "mce")], "group"].item() == f"against {runs / 'bp'}"
    assert summary.loc[[("fa", "difference")], "ci_high"].item() < 0
    assert "mCE against" in out
    assert "difference against" in out
    sidecar = json.loads((tmp_path / "corruptions.json").read_text())
    assert set(sidecar["corrupted_set"]["md5"]) == set(small_images().corruptions)
    for name in ("corruptions.pdf", "corruptions.png", "corruptions_heatmap.png"):
        assert (tmp_path / name).is_file()


def test_samples_are_the_same_in_every_cell_and_reproducible(runs, digits_c, tmp_path, capsys):
    tables = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        arguments = ["--cifar10c", digits_c, "--samples", 50, "--seed", 3, "--corruptions", "contrast", "--out", folder]
        assert analyze(capsys, "corruptions", runs / "bp", *arguments)[0] == 0
        tables.append(pd.read_csv(folder / "corruptions.csv"))
    assert set(tables[0].n_samples) == {50}
    assert set(tables[0].corruption) == {"clean", "contrast"}
    pd.testing.assert_frame_equal(*tables)


def test_a_damaged_set_is_refused_and_nothing_written(runs, digits_c, tmp_path, capsys):
    damaged = tmp_path / "set"
    damaged.mkdir()
    for file in digits_c.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    content = bytearray((damaged / "contrast.npy").read_bytes())
    content[-1] ^= 1
    (damaged / "contrast.npy").write_bytes(content)
    arguments = ["corruptions", runs / "bp", "--cifar10c", damaged, "--out", tmp_path / "out"]
    refused(analyze(capsys, *arguments), "contrast.npy", "--allow-unverified")
    assert not (tmp_path / "out").exists()
    status, _, err = analyze(capsys, *arguments, "--allow-unverified")
    assert status == 0
    assert err.startswith("analyze: warning: ")
    frame = pd.read_csv(tmp_path / "out" / "corruptions.csv")
    assert set(frame[frame.provenance == "unverified"].corruption) == {"contrast"}


def test_bad_input_is_one_line(runs, digits_c, tmp_path, capsys):
    command = ["corruptions", runs / "bp"]
    refused(analyze(capsys, *command), "--cifar10c")
    refused(analyze(capsys, *command, "--cifar10c", tmp_path / "none"), "no such folder")
    refused(analyze(capsys, *command, "--cifar10c", tmp_path), "labels.npy")
    refused(analyze(capsys, *command, "--cifar10c", digits_c, "--corruptions", "fog"), "fog.npy")
    refused(analyze(capsys, *command, "--cifar10c", digits_c, "--split", "train"), "--split")


def test_names_that_leave_the_folder_and_shuffled_labels_are_refused(runs, digits_c, tmp_path, capsys):
    command = ["corruptions", runs / "bp", "--out", tmp_path / "out", "--cifar10c"]
    refused(analyze(capsys, *command, digits_c, "--corruptions", f"../{digits_c.name}/contrast"), "is no name of")
    shuffled = tmp_path / "set"
    shuffled.mkdir()
    (shuffled / "fog.npy").write_bytes((digits_c / "contrast.npy").read_bytes())
    labels = np.load(digits_c / "labels.npy").reshape(5, -1)
    np.save(shuffled / "labels.npy", np.roll(labels, 1, axis=1).ravel())
    status, out, err = analyze(capsys, *command, shuffled, "--allow-unverified")
    assert (status, out) == (2, "")
    assert "labels of the clean test images in another order" in err
    assert not (tmp_path / "out").exists()
    assert analyze(capsys, *command, shuffled, "--allow-unverified", "--no-clean")[0] == 0
    assert pd.read_csv(tmp_path / "out" / "corruptions.csv").corrupted_set.unique().tolist() == ["CIFAR-10-C"]


def test_a_set_of_other_images_has_no_clean_accuracy(runs, tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    make_corrupted_set(images, np.arange(20) % 10, tmp_path / "set", definition=small_images())
    status, _, err = analyze(capsys, "corruptions", runs / "bp", "--cifar10c", tmp_path / "set", "--out", tmp_path)
    assert status == 0
    assert "no clean accuracy" in err
    assert "clean" not in set(pd.read_csv(tmp_path / "corruptions.csv").corruption)


def test_a_set_of_another_size_is_refused(runs, photos, tmp_path, capsys):
    make = ["make-cifar10c", "--images", photos / "photos.npy", "--labels", photos / "labels.npy", "--out", tmp_path]
    assert analyze(capsys, *make, "--corruptions", "contrast", "--workers", 1)[0] == 0
    refused_lines = analyze(capsys, "corruptions", runs / "bp", "--cifar10c", tmp_path / "photos-C", "--out", tmp_path)
    assert refused_lines[0] == 2
    assert "(32, 32, 3)" in refused_lines[2].splitlines()[-1]
    assert "Traceback" not in refused_lines[2]


def test_a_refused_call_says_one_line(photos, tmp_path, capsys):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for images, out in ((photos / "photos.npy", tmp_path / "file" / "below"), (tmp_path / "pipe", tmp_path / "new")):
        make = ["make-cifar10c", "--images", images, "--labels", photos / "labels.npy", "--out", out]
        status, _, err = analyze(capsys, *make)
        assert (status, len(err.splitlines())) == (2, 1), err  # and no word of the textures of a set that is not made
    assert not (tmp_path / "new").exists()


def test_make_writes_set_sheet_and_what_each_file_is(photos, tmp_path, capsys):
    command = ["make-cifar10c", "--images", photos / "photos.npy", "--labels", photos / "labels.npy", "--out", tmp_path]
    status, out, err = analyze(capsys, *command, "--corruptions", "contrast", "frost", "--workers", 2)
    assert status == 0
    assert "stand-in" in err  # no --frost-dir here
    assert {path.name for path in (tmp_path / "photos-C").iterdir()} == {
        "contrast.npy", "frost.npy", "labels.npy", "provenance.json",
    }  # fmt: skip
    lines = [line.split() for line in out.splitlines()]
    assert ["contrast", "regenerated"] in lines
    assert ["frost", "approximate"] in lines
    assert (tmp_path / "photos-C-contact-sheet.png").stat().st_size > 5000
    before = (tmp_path / "photos-C" / "frost.npy").stat().st_mtime_ns
    assert analyze(capsys, *command, "--workers", 1)[0] == 0  # all fifteen now: two are there
    assert (tmp_path / "photos-C" / "frost.npy").stat().st_mtime_ns == before
    assert len(list((tmp_path / "photos-C").glob("*.npy"))) == 16


@pytest.fixture(scope="module")
def cifar100(tmp_path_factory):
    """A data root with 12 random images in the official layout of CIFAR-100; with its images and labels."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "cifar-100-python"
    folder.mkdir()
    images = np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    labels = [int(label) for label in range(0, 96, 8)]
    rows = {"data": images.transpose(0, 3, 1, 2).reshape(12, -1), "fine_labels": labels, "coarse_labels": [0] * 12}
    (folder / "test").write_bytes(pickle.dumps(rows))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(number) for number in range(100)]}))
    return root, images, labels


def test_make_reads_the_layout_of_cifar_100(cifar100, tmp_path, capsys, monkeypatch):
    root, images, labels = cifar100
    files = root / "cifar-100-python"
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "train_list", [])
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "test_list", [["test", md5_file(files / "test")]])
    meta = {"filename": "meta", "key": "fine_label_names", "md5": md5_file(files / "meta")}
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "meta", meta)
    # A thread in place of the process that reads, which would know the published checksums only.
    monkeypatch.setattr(make_cifar10c, "ProcessPoolExecutor", lambda count, mp_context: ThreadPoolExecutor(count))
    make = ["make-cifar10c", "--dataset", "cifar100", "--data-root", root, "--out", tmp_path, "--workers", 1]
    assert analyze(capsys, *make, "--corruptions", "contrast", "fog")[0] == 0
    made = tmp_path / "CIFAR-100-C"
    np.testing.assert_array_equal(np.load(made / "labels.npy"), np.tile(labels, 5))
    with pytest.warns(UserWarning, match="stand-in"):
        definition = cifar_c(load_frost_textures())
    for name in ("contrast", "fog"):
        stored = np.load(made / f"{name}.npy").reshape(5, 12, 32, 32, 3)
        for severity in range(1, 6):
            expected = definition.corrupt(images, name, severity, seed=0)
            np.testing.assert_array_equal(stored[severity - 1], expected)


def test_make_refuses_a_data_set_that_is_not_the_published_one(cifar100, tmp_path, capsys):
    make = ["make-cifar10c", "--dataset", "cifar100", "--data-root", cifar100[0], "--out", tmp_path / "out"]
    refused(analyze(capsys, *make), "cifar100", "cannot be read", "--download")
    assert not (tmp_path / "out").exists()


def test_make_keeps_torch_out_of_the_process_that_hands_out_the_work(cifar_root, tmp_path):
    script = textwrap.dedent("""
        import sys
        from reports.cli import main
        from reports.commands import make_cifar10c

        def look(*_):
            print(not {"torch", "torchvision", "matplotlib"}.isdisjoint(sys.modules))
            return "no sheet"

        make_cifar10c._draw_sheet = look
        if __name__ == "__main__":
            flags = ["--corruptions", "contrast", "--workers", "1", "--quiet"]
            sys.exit(main(["make-cifar10c", "--data-root", sys.argv[1], "--out", sys.argv[2], *flags]))
    """)
    command = [sys.executable, "-c", script, cifar_root, tmp_path]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert out.splitlines()[0] == "False"
    assert ["contrast", "exact"] in [line.split() for line in out.splitlines()]


def test_make_refuses_in_one_line(photos, tmp_path, capsys):
    make = ["make-cifar10c", "--out", tmp_path / "out"]
    refused(analyze(capsys, *make, "--data-root", tmp_path), "test_batch")
    refused(analyze(capsys, *make, "--images", photos / "photos.npy"), "--labels")
    refused(analyze(capsys, *make, "--images", tmp_path / "no.npy", "--labels", photos / "labels.npy"), "no.npy")
    both = ["--images", photos / "photos.npy", "--labels", photos / "labels.npy"]
    refused(analyze(capsys, *make, *both, "--frost-dir", tmp_path), "frost1.png")
    assert not (tmp_path / "out").exists()


def test_contact_sheet_has_a_thumbnail_for_every_cell(photos):
    from alignscape.errors import InputError
    from reports.figures.contact_sheet import contact_sheet

    images = np.load(photos / "photos.npy")
    stacks = {"fog": images[:5], "snow": images[5:10], "contrast": images[10:15]}
    categories = {"fog": "weather", "snow": "weather", "contrast": "digital"}
    figure = contact_sheet(stacks, range(1, 6), categories=categories, clean=images[20])
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert len(shown) == 18
    np.testing.assert_array_equal(shown[0], images[20])  # the clean row comes first
    np.testing.assert_array_equal(shown[4], images[5])  # then severity 1: fog, snow, contrast
    assert [axes.get_title() for axes in figure.axes[:3]] == ["fog", "snow", "contrast"]
    assert [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()] == ["weather", "digital"]
    with pytest.raises(InputError, match="needs 5"):
        contact_sheet({"fog": images[:4]}, range(1, 6))
    with pytest.raises(InputError, match="no corruptions"):
        contact_sheet({}, range(1, 6))
