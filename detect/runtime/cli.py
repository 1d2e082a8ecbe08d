"""What every command-line tool shares: how it ends when something is wrong."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from detect.errors import InputError, visible
from detect.runtime.decoder_messages import listen_to_decoders
from detect.runtime.interruption import Terminated
from detect.runtime.logs import configure_logging
from detect.runtime.processes import LostContactError
from detect.runtime.terminal import shield_terminal

_SYSTEM_ERRORS = {
    errno.ENOSPC: "the disk is full; nothing that was there before has changed",
    errno.EACCES: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.EDQUOT: "the disk quota is used up",
}


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool and end the process.

    Its exit code is 0 when it is done, 2, with one clear line, for bad input, 1 where another process of the run is
    lost, 130 for Ctrl-C, 143 for SIGTERM where the tool hears it (``detect.runtime.interruption``).

    Args:
        main: the tool; it reads ``sys.argv``.
    """
    configure_logging()
    threading.excepthook = _leave_to_the_main_thread
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    shield_terminal()
    listen_to_decoders()
    try:
        main()
        sys.stdout.flush()
    except InputError as error:
        _end(2, f"error: {error}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        reason = _SYSTEM_ERRORS.get(error.errno or 0, error.strerror or str(error))
        _end(2, visible(f"error: {error.filename or 'input/output'}: {reason}"))
    except LostContactError as error:
        _end(1, f"error: {error}")
    except Terminated:
        _end(143, "terminated")
    except KeyboardInterrupt:
        _end(130, "interrupted")


class ToolParser(argparse.ArgumentParser):
    """``ArgumentParser`` whose complaints are one line, like all others; flags must be written out.

    Args:
        description: the tool's docstring, or what a command of it does.
        prog: how the help calls it; default, the file's name.
    """

    def __init__(self, description: str | None = None, prog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line."""
        raise InputError(f"{message}; --help lists what there is")


def positive_int(text: str) -> int:
    """An ``argparse`` type: a whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, found {text!r}")
    return int(text)


def non_negative_int(text: str) -> int:
    """An ``argparse`` type: a whole number from 0."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, found {text!r}")
    return int(text)


def _leave_to_the_main_thread(raised: threading.ExceptHookArgs) -> None:
    """Keep quiet about a thread that cannot write: TensorBoard raises its writer's error again at the next record."""
    if not issubclass(raised.exc_type, OSError):
        threading.__excepthook__(raised)


def _end(code: int, line: str) -> None:
    print(line, file=sys.stderr)
    sys.exit(code)
