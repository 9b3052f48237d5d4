"""CIFAR-10-C: microseconds an image against the usual loop over images, and the whole set in time and memory.

    python benchmarks/corruptions.py --data-root DIR                    # ratios on one core
    python benchmarks/corruptions.py --data-root DIR --whole /tmp/c     # all 750,000 images, 2.3 GB

The loop does what the published make_cifar_c.py does, with the same library calls; snow and motion blur have none,
because there they are calls of ImageMagick. With --frost-dir frost uses the official textures.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

# Python puts this file's folder first, where robustness.py hides the package of that name.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.util import random_noise

from robustness.checksums import CIFAR_10_C
from robustness.cifar10c import CORRUPTIONS, md5_file
from robustness.corruptions import SEVERITIES, Definition, cifar_c, load_frost_textures
from robustness.corruptions.pixels import to_bytes
from robustness.corruptions.streams import image_streams
from training.data import load_split

ROOT = Path(__file__).resolve().parent.parent
Image = NDArray[np.uint8]
Loop = Callable[[Image, int, np.random.Generator], Image]
TARGET_SECONDS, TARGET_MEGABYTES = 240, 1000


def loop_impulse_noise(image: Image, severity: int, stream: np.random.Generator) -> Image:
    amount = [0.01, 0.02, 0.03, 0.05, 0.07][severity - 1]
    return to_bytes(random_noise(image / 255.0, mode="s&p", amount=amount, rng=stream))


def loop_fog(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """With each scale of the cloud filled by whole-array operations, as published."""
    scale, decay = [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)][severity - 1]
    heights, step, wobble = np.zeros((32, 32)), 32, 100.0
    while step >= 2:
        half = step // 2

        def displaced(total: NDArray[np.float64], wobble: float = wobble) -> NDArray[np.float64]:
            return total / 4 + wobble * stream.uniform(-wobble, wobble, total.shape)

        corner = heights[::step, ::step]
        square = corner + np.roll(corner, -1, axis=0)
        heights[half::step, half::step] = displaced(square + np.roll(square, -1, axis=1))
        middle = heights[half::step, half::step]
        heights[::step, half::step] = displaced(
            middle + np.roll(middle, 1, axis=0) + corner + np.roll(corner, -1, axis=1)
        )
        heights[half::step, ::step] = displaced(
            middle + np.roll(middle, 1, axis=1) + corner + np.roll(corner, -1, axis=0)
        )
        step, wobble = half, wobble / decay
    heights -= heights.min()
    x = image / 255.0
    return to_bytes((x + scale * (heights / heights.max())[..., None]) * x.max() / (x.max() + scale))


def peers(textures: Sequence[Image]) -> dict[str, Loop]:
    """Return the loop's function for every corruption that has one; most are those that the tests compare with."""
    sys.path.insert(0, str(ROOT / "tests"))
    import corruption_references as loop

    loop.FROST[:] = textures
    found = {name: getattr(loop, name) for name in CORRUPTIONS if name not in ("snow", "motion_blur")}
    return found | {"impulse_noise": loop_impulse_noise, "fog": loop_fog}


def ratios(images: Image, definition: Definition, loops: Mapping[str, Loop], rounds: int) -> None:
    """Print microseconds an image, mean over severities and the best of some rounds, for loop and package."""
    print(f"{'corruption':20s}{'loop us':>10s}{'ours us':>10s}{'ratio':>8s}   one core, {len(images)} images")
    sums = np.zeros(2)
    for name in CORRUPTIONS:
        peer = loops.get(name)
        ours, theirs = [], []
        for _ in range(rounds):  # side by side, so that a busy machine slows both
            begin = time.perf_counter()
            for severity in SEVERITIES:
                for first in range(0, len(images), 100):
                    definition.corrupt(images[first : first + 100], name, severity, seed=0, first=first)
            ours.append(time.perf_counter() - begin)
            if peer is None:
                continue
            begin = time.perf_counter()
            for severity in SEVERITIES:
                streams = image_streams(0, name, severity, 0, len(images))
                for image, stream in zip(images, streams, strict=True):
                    peer(image, severity, stream)
            theirs.append(time.perf_counter() - begin)
        scale = 1e6 / len(images) / len(SEVERITIES)
        mine, other = min(ours) * scale, min(theirs, default=float("nan")) * scale
        print(f"{name:20s}{other:10.0f}{mine:10.0f}{other / mine:8.1f}", flush=True)
        if theirs:
            sums += other, mine
    print(f"{'sum of the compared':20s}{sums[0]:10.0f}{sums[1]:10.0f}{sums[0] / sums[1]:8.1f}")


def family(pid: int) -> Iterator[int]:
    """Yield a process and all below it (Linux only)."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # it has just ended
            continue
        for child in children:
            yield from family(int(child))


def megabytes(pid: int) -> tuple[float, float]:
    """Return a process' memory: PSS, in whose sum pages that several processes share count once, and RSS."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    sizes = {line.split()[0]: int(line.split()[1]) / 1000 for line in lines[1:]}
    return sizes["Pss:"], sizes["Rss:"]


def whole(args: argparse.Namespace) -> None:
    """Run the command that makes the set, and compare time, memory and bytes with what is wanted."""
    command = [sys.executable, "-m", "reports.cli", "make-cifar10c", "--quiet"]
    command += ["--data-root", str(args.data_root), "--out", str(args.whole)]
    command += ["--frost-dir", str(args.frost_dir)] if args.frost_dir else []
    command += ["--workers", str(args.workers)] if args.workers else []
    begin, peak, largest = time.perf_counter(), 0.0, 0.0
    with subprocess.Popen(command, cwd=ROOT) as process:
        while process.poll() is None:
            sizes = [megabytes(pid) for pid in family(process.pid)]
            peak = max(peak, sum(shared for shared, _ in sizes))
            largest = max(largest, *(resident for _, resident in sizes))
            time.sleep(0.2)
    seconds = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(process.returncode)
    cores = args.workers or len(os.sched_getaffinity(0))
    print(f"whole set: {seconds:.0f} s, {cores} processes: {seconds / TARGET_SECONDS:.2f} of {TARGET_SECONDS} s")
    print(f"memory:    {peak:.0f} MB over all processes (PSS): {peak / TARGET_MEGABYTES:.2f} of {TARGET_MEGABYTES} MB")
    print(f"           {largest:.0f} MB in the largest (RSS), both looked at five times a second")
    folder = args.whole / "CIFAR-10-C"
    same = [name for name in (*CORRUPTIONS, "labels") if md5_file(folder / f"{name}.npy") == CIFAR_10_C[name]]
    print(f"official md5: {', '.join(same)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder with cifar-10-batches-py")
    parser.add_argument("--frost-dir", type=Path, help="folder with the five frost textures")
    parser.add_argument("--images", type=int, default=200, help="images for the ratios (default: 200)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the best counts (default: 3)")
    parser.add_argument("--whole", type=Path, metavar="DIR", help="make the whole set in a new folder instead")
    parser.add_argument("--workers", type=int, help="processes for --whole (default: one a core)")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if args.whole is None:
        split = load_split("cifar10", "test", args.data_root)
        images = np.ascontiguousarray(split.images[: args.images].permute(0, 2, 3, 1).numpy())
        textures = load_frost_textures(args.frost_dir)
        ratios(images, cifar_c(textures), peers(textures.images), args.rounds)
    elif args.whole.exists():
        parser.error(f"{args.whole} exists; the time would be that of a part")
    else:
        whole(args)


if __name__ == "__main__":
    main()
