"""Making sets on disk: any number of processes, interruptions, and what it refuses to write over."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from corrupted_sets import heavy_imports, make_small_set

from alignscape.errors import InputError
from robustness import checksums
from robustness.checksums import CIFAR_10_C
from robustness.cifar10c import md5_file, open_corrupted_set
from robustness.corruptions import Corruption, Definition, cifar_c, load_frost_textures, small_images
from robustness.generate import make_corrupted_set
from training.data import load_split


@pytest.fixture(scope="module")
def textures():
    with pytest.warns(UserWarning, match="no frost textures"):
        return load_frost_textures()


@pytest.fixture
def definition(textures):
    return cifar_c(textures)


@pytest.fixture(scope="module")
def photos():
    """230 images of 32 x 32: two whole chunks and a part of one."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (230, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2), rng.integers(0, 10, 230)


def identity(path):
    """What changes if the file is written again."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def contents(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.npy")}


def test_the_files_are_in_the_official_layout(tmp_path, photos, definition):
    images, labels = photos
    chosen = ["fog", "contrast"]
    make_corrupted_set(images, labels, tmp_path, definition=definition, corruptions=chosen, seed=4)
    for name in chosen:
        stored = np.load(tmp_path / f"{name}.npy")
        assert stored.shape == (5 * 230, 32, 32, 3)
        assert stored.dtype == np.uint8
        for severity in range(1, 6):
            block = stored[(severity - 1) * 230 : severity * 230]
            np.testing.assert_array_equal(block, definition.corrupt(images, name, severity, seed=4))
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), np.tile(labels, 5))
    assert np.load(tmp_path / "labels.npy").dtype == np.uint8
    assert not list(tmp_path.glob(".*"))


def test_the_number_of_processes_does_not_matter(tmp_path, photos, definition):
    images, labels = photos
    chosen = ["shot_noise", "glass_blur", "snow", "frost", "elastic_transform"]
    for workers in (1, 2):
        make_corrupted_set(
            images, labels, tmp_path / str(workers), definition=definition, corruptions=chosen, workers=workers
        )
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_provenance_says_what_every_file_is(tmp_path, photos, definition, monkeypatch):
    images, labels = photos
    chosen = ["contrast", "pixelate", "fog", "frost", "jpeg_compression"]
    options = {"definition": definition, "corruptions": chosen, "severities": (1, 2)}
    assert make_corrupted_set(images, labels, tmp_path / "other", **options) == {
        "contrast": "regenerated", "pixelate": "regenerated", "fog": "regenerated",
        "frost": "approximate", "jpeg_compression": "regenerated",
    }  # fmt: skip
    # The same images, if they were the official ones: contrast as published, pixelate not.
    table = {"labels": md5_file(tmp_path / "other" / "labels.npy")}
    table |= {"contrast": md5_file(tmp_path / "other" / "contrast.npy"), "pixelate": "0" * 32, "fog": "0" * 32}
    monkeypatch.setitem(checksums.OFFICIAL, "CIFAR-10-C", table)
    found = make_corrupted_set(images, labels, tmp_path / "official", **options)
    assert found["contrast"] == "exact"
    assert found["pixelate"] == "approximate"  # deterministic, and yet not the bytes
    assert found["fog"] == "regenerated"
    assert {f.name: f.provenance for f in open_corrupted_set(tmp_path / "official").files} == found


def test_labels_keep_many_classes(tmp_path):
    images = np.zeros((3, 8, 8, 1), dtype=np.uint8)
    make_corrupted_set(images, np.array([1, 255, 256]), tmp_path, definition=small_images(), severities=(1,))
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), [1, 255, 256])


def test_only_what_is_missing_is_made(tmp_path):
    make_small_set(tmp_path, corruptions=["contrast"])
    before = identity(tmp_path / "contrast.npy")
    seen = []
    make_small_set(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert identity(tmp_path / "contrast.npy") == before
    assert seen[0] == (300, 1200)  # one file of four is there
    assert seen[-1] == (1200, 1200)
    whole = contents(tmp_path)
    make_small_set(tmp_path / "at-once")
    assert contents(tmp_path / "at-once") == whole


def test_a_damaged_file_is_made_again(tmp_path):
    make_small_set(tmp_path)
    whole = contents(tmp_path)
    (tmp_path / "pixelate.npy").write_bytes(b"broken")
    (tmp_path / "gaussian_blur.npy").unlink()
    make_small_set(tmp_path)
    assert contents(tmp_path) == whole


def test_killed_and_started_again(tmp_path):
    """SIGKILL while a file is being written: the finished ones stay as they are, the result is the same."""
    script = textwrap.dedent("""
        import sys, time, warnings
        import numpy as np
        from robustness.corruptions import cifar_c, load_frost_textures
        from robustness.generate import make_corrupted_set

        warnings.simplefilter("ignore")
        def progress(done, total):
            print(done, flush=True)
            time.sleep(float(sys.argv[2]))
        images = np.random.default_rng(0).integers(0, 256, (120, 32, 32, 3), dtype=np.uint8)
        make_corrupted_set(
            images, np.arange(120) % 10, sys.argv[1], definition=cifar_c(load_frost_textures()), workers=1,
            corruptions=["contrast", "fog", "gaussian_noise"], progress=progress,
        )
    """)
    command = [sys.executable, "-c", script]
    folder = tmp_path / "killed"
    with subprocess.Popen([*command, str(folder), "0.2"], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) > 600:  # the first file is finished, the second is not
                break
        process.send_signal(signal.SIGKILL)
    assert not (folder / "fog.npy").exists()
    assert list(folder.glob(".fog*")), "nothing was being written"
    first = identity(folder / "contrast.npy")
    subprocess.run([*command, str(folder), "0"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*command, str(tmp_path / "whole"), "0"], check=True, stdout=subprocess.DEVNULL)
    assert identity(folder / "contrast.npy") == first
    assert contents(folder) == contents(tmp_path / "whole")
    assert not list(folder.glob(".*"))


def test_processes_end_with_the_one_that_is_killed(tmp_path):
    script = textwrap.dedent("""
        import multiprocessing, sys, time
        import numpy as np
        from robustness.corruptions import small_images
        from robustness.generate import make_corrupted_set

        def progress(done, total):
            if done:
                print(*(process.pid for process in multiprocessing.active_children()), flush=True)
                time.sleep(60)
        images = np.zeros((200, 8, 8, 1), dtype=np.uint8)
        make_corrupted_set(
            images, np.zeros(200, dtype=int), sys.argv[1], definition=small_images(), workers=2, progress=progress
        )
    """)
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        process.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline, "workers outlive the process that they work for"
        time.sleep(0.1)


def is_running(pid):
    """Whether a process is there and no zombie that nobody has collected."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_workers_import_nothing_heavy(tmp_path):
    """torch alone takes half a gigabyte of a process, and there is one process a core."""
    told = Corruption(name="told", category="noise", distort=heavy_imports, random=False)
    definition = Definition(title="imports", corruptions={"told": told})
    images = np.zeros((3, 8, 8, 1), dtype=np.uint8)
    make_corrupted_set(images, np.arange(3), tmp_path, definition=definition, workers=2)
    assert (np.load(tmp_path / "told.npy") == 0).all()


def test_a_failing_worker_leaves_no_file(tmp_path, photos, definition):
    class Broken(Exception):
        pass

    def stop(done, total):
        if done > 100:
            raise Broken

    images, labels = photos
    with pytest.raises(Broken):
        make_corrupted_set(images, labels, tmp_path, definition=definition, corruptions=["fog"], progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.npy", "provenance.json"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"severities": (1, 2)}, {"count": 50}, {"source": "elsewhere"}])
def test_another_set_is_not_mixed_in(tmp_path, change):
    make_small_set(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError, match="holds another set"):
        make_small_set(tmp_path, **change)
    assert contents(tmp_path) == before


def test_files_from_elsewhere_are_not_written_over(tmp_path):
    np.save(tmp_path / "fog.npy", np.zeros(3, np.uint8))
    with pytest.raises(InputError, match=r"fog\.npy without provenance\.json"):
        make_small_set(tmp_path)
    (tmp_path / "fog.npy").unlink()
    (tmp_path / "provenance.json").write_text("{")
    with pytest.raises(InputError, match=r"provenance\.json is damaged"):
        make_small_set(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corruptions": ["rain"]}, "unknown corruption 'rain'"),
        ({"severities": (0, 1)}, "severities"),
        ({"severities": (2, 2)}, "severities"),
        ({"severities": ()}, "severities"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        make_small_set(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 28, 28, 1), np.uint8), np.zeros(2, int), "defined for"),
        (np.zeros((2, 32, 32, 3), np.float32), np.zeros(2, int), "need uint8"),
        (np.zeros((2, 32, 32, 3), np.uint8), np.zeros(3, int), "do not belong together"),
        (np.zeros((2, 32, 32, 3), np.uint8), np.zeros(2), "must be integers"),
    ],
)
def test_images_that_do_not_fit_are_refused(tmp_path, definition, images, labels, message):
    with pytest.raises(InputError, match=message):
        make_corrupted_set(images, labels, tmp_path / "new", definition=definition)
    assert not (tmp_path / "new").exists()


def test_the_official_files_come_out_of_the_real_test_set(tmp_path, cifar_root, definition):
    split = load_split("cifar10", "test", cifar_root)
    images = split.images.permute(0, 2, 3, 1).numpy()  # not in the memory order of the files
    options = {"definition": definition, "corruptions": ["contrast"], "workers": 1}
    assert make_corrupted_set(images, split.labels.numpy(), tmp_path, **options) == {"contrast": "exact"}
    record = json.loads((tmp_path / "provenance.json").read_text())
    for name in ("labels", "contrast"):
        assert record["files"][name]["md5"] == md5_file(tmp_path / f"{name}.npy") == CIFAR_10_C[name]
