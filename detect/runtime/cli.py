"""The shared frame of the commands: streams, signals, and how a command ends.

A standard output that goes away (``| head -2``, a pager that is closed, ``>&-``) silences the printing from then on;
the work goes on to its end, with all its files, and the exit code is that of the work. Text that is lost in any other
way (``> FILE`` on a full disk) makes the exit code 2 when everything else is done. What cannot be written to standard
error changes nothing.
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
from detect.runtime.logs import configure_logging, listen_to_decoders
from detect.safety.terminal import flush_output, shield_terminal

_SYSTEM_ERRORS = {
    errno.ENOSPC: "the disk is full; nothing that was there before has changed",
    errno.EACCES: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.EDQUOT: "the disk quota is used up",
}
_END_S = 5.0
"""Seconds that a process which was killed is waited for."""


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool and end the process.

    Its exit code is 0 when it is done, 2, with one clear line, for bad input, 1 where another process of the run is
    lost, 130 for Ctrl-C, 143 for SIGTERM.

    Args:
        main: the tool; it reads ``sys.argv``.
    """
    configure_logging()
    threading.excepthook = _leave_to_the_main_thread
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    shield_terminal()
    listen_to_decoders()
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
    """Exit code of a tool, and the line that says why it is not 0."""
    code, line = 0, ""
    try:
        try:
            main()
        finally:  # while the error keeps the loaders, which would wait for workers that hang
            _end_children()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0  # None; no tool ends by a text
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
    """End the processes that the tool has left: one that hangs would be waited for when the interpreter ends."""
    children = multiprocessing.active_children()
    if not children:
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would complain of their end
    for child in children:
        child.kill()
        child.join(_END_S)
    signal.signal(signal.SIGCHLD, before)


def _reason(error: OSError) -> str:
    return _SYSTEM_ERRORS.get(error.errno or 0, error.strerror or str(error))


def _leave_to_the_main_thread(raised: threading.ExceptHookArgs) -> None:
    """Keep quiet about a thread that cannot write: TensorBoard raises its writer's error again at the next record."""
    if not issubclass(raised.exc_type, OSError):
        threading.__excepthook__(raised)
