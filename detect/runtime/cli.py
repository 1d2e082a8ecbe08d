"""Standard streams, signals and exit code of a command's process.

When standard output is closed (``| head -2``, a pager that quits, ``>&-``), printing stops; the work completes with all
its files and its exit code. Text that is lost in any other way (``> FILE`` on a full disk) makes the exit code 2 when
everything else is done. A failure to write to standard error has no effect.
"""

from __future__ import annotations

import errno
import io
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable

from detect.errors import InputError, visible
from detect.runtime.interruption import LostContactError, Terminated, lost_worker, signals_as_exceptions
from detect.runtime.logs import capture_decoder_messages, configure_logging
from detect.safety.terminal import flush_output, shield_terminal

_SYSTEM_ERRORS = {
    errno.ENOSPC: "the disk is full; nothing that was there before has changed",
    errno.EACCES: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.EDQUOT: "the disk quota is used up",
}
_END_S = 5.0
"""Seconds to wait for a killed process."""


def run_tool(main: Callable[[], None]) -> None:
    """Run a command and end the process.

    The exit code is 0 for success, 2 with one line for bad input, 1 if another process of the run is lost, 130 for
    Ctrl-C, 143 for SIGTERM. ``main`` may choose another with ``sys.exit``.
    """
    configure_logging()
    threading.excepthook = _ignore_thread_os_error
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names may not be valid Unicode
        sys.stdout.reconfigure(errors="backslashreplace")
    shield_terminal()
    capture_decoder_messages()
    with signals_as_exceptions():
        code, line = _outcome(main)
    if line:
        print(line, file=sys.stderr)
    if (lost := flush_output()) and not code:
        code = 2
        print(f"error: standard output: {_reason(lost)}; all else is done", file=sys.stderr)
    if code:
        sys.exit(code)


def _outcome(main: Callable[[], None]) -> tuple[int, str]:
    code, line = 0, ""
    try:
        try:
            main()
        finally:  # while the error still refers to the loaders, which would wait for hanging workers
            _end_children()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0  # None; no command exits with a text
    except InputError as error:
        code, line = 2, f"error: {error}"
    except OSError as error:
        code, line = 2, visible(f"error: {error.filename or 'input/output'}: {_reason(error)}")
    except MemoryError:
        code, line = 2, "error: the memory is used up; a smaller batch, smaller images or fewer --workers need less"
    except LostContactError as error:
        code, line = 1, f"error: {error}"
    except RuntimeError as error:
        lost = lost_worker(error)
        if lost is None:
            raise
        code, line = 1, f"error: {lost}"
    except Terminated:
        code, line = 143, "terminated"
    except KeyboardInterrupt:
        code, line = 130, "interrupted"
    return code, line


def _end_children() -> None:
    """Kill the child processes: the interpreter would wait for one that hangs."""
    children = multiprocessing.active_children()
    if not children:
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would raise
    for child in children:
        child.kill()
        child.join(_END_S)
    signal.signal(signal.SIGCHLD, before)


def _reason(error: OSError) -> str:
    return _SYSTEM_ERRORS.get(error.errno or 0, error.strerror or str(error))


def _ignore_thread_os_error(raised: threading.ExceptHookArgs) -> None:
    """Ignore a thread that cannot write: TensorBoard raises its writer's error again at the next record."""
    if not issubclass(raised.exc_type, OSError):
        threading.__excepthook__(raised)
