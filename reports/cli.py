"""The console command ``analyze``: runs a command and puts what is wrong into one line."""

import os
import sys
import threading
import time
import traceback
import warnings

from alignscape.errors import InputError, ends_all_work, refusal
from reports.commands.parser import build_parser
from reports.shortage import require_room_to_load, shortage_told


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit status (2 for bad input, after one line on stderr)."""
    warnings.showwarning = _show_warning
    threading.excepthook = _show_thread
    argv = sys.argv[1:] if argv is None else argv
    try:
        _run(argv)
    except SystemExit:  # after --help, which may be for a full disk
        _give_up_output()
        raise
    except InputError as error:
        if "--verbose" in argv:
            traceback.print_exc()
        print(f"analyze: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except TypeError as error:
        if "MPS" not in str(error):
            raise
        print(f"analyze: error: --device mps cannot compute this ({error}): use --device cpu", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `analyze ... | head`
        _give_up_output()
    except OSError as error:
        _give_up_output()
        if (reason := refusal(error)) is None:
            raise
        print(f"analyze: error: {' '.join(reason.split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("analyze: interrupted; the same command goes on where it can", file=sys.stderr)
        return 130
    return 0


def _run(argv: list[str]) -> None:
    """Run one command."""
    begun = time.monotonic()
    args = build_parser(argv[0] if argv else "").parse_args(argv)
    if args.verbose:
        tell_all()
    with shortage_told(args):
        if argv[0] != "runs":  # which goes without torch
            require_room_to_load()
        args.run(args)
        sys.stdout.flush()  # here, where a full disk is one line
    if args.verbose:
        print(f"analyze: {time.monotonic() - begun:.1f} s", file=sys.stderr)


def tell_all() -> None:
    """Show every warning with its place, and say which versions are at work where."""
    from alignscape.device import describe_device, resolve_device
    from alignscape.version import versions

    warnings.showwarning = _show_everything
    warnings.simplefilter("always")
    told = ", ".join(f"{name} {value}" for name, value in versions().items() if value)
    print(f"analyze: {told}; device auto is {describe_device(resolve_device('auto'))}", file=sys.stderr)


def _show_everything(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
) -> None:
    print(f"analyze: warning: {filename}:{lineno}: {category.__name__}: {message}", file=sys.stderr)


def _give_up_output() -> None:
    """Drop what standard output does not take, which would be tried again, and complained of, when Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Show our own warnings as one line; hide the libraries' talk among themselves."""
    if issubclass(category, UserWarning) and not issubclass(category, DeprecationWarning):  # pyparsing's are both
        print(f"analyze: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _show_thread(failed: threading.ExceptHookArgs) -> None:
    """Show what a thread died of; of a full disk the one that waits for it hears, and says so in its own line."""
    if not (isinstance(failed.exc_value, OSError) and ends_all_work(failed.exc_value)):
        threading.__excepthook__(failed)


if __name__ == "__main__":
    sys.exit(main())
