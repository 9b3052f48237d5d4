"""The process of one part: ``python -m benchmarks.gpu.work PART --rows FILE ...``, started by ``running.py``."""

import argparse
import importlib
import os
import signal
import threading
import time
from pathlib import Path

from benchmarks.gpu import missing  # noqa: F401  stands in for what is missing, before anything of ours is imported
from benchmarks.gpu.parts import PARTS, Report, Setup


def end_with_parent() -> None:
    """Kill this process and all that it has started when the command is killed, which cannot do so itself."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--so-far", type=Path)
    args = parser.parse_args()
    end_with_parent()
    if args.device == "cpu":
        import torch

        torch.set_num_threads(1)
    given = {name: getattr(args, name) for name in ("device", "folder", "seconds", "data_root", "so_far")}
    module, _, name = PARTS[args.part].function.partition(":")
    with args.rows.open("a", encoding="utf-8") as stream:
        function = getattr(importlib.import_module(f"benchmarks.gpu.{module}"), name)
        function(Setup(**given), Report(stream, args.device))


if __name__ == "__main__":
    main()
