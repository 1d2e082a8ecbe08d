"""The command ``detect``: a file for each of its commands, which parses; what it needs is imported when it runs."""

from __future__ import annotations

from detect.runtime.startup import start_tool


def start(*command: str) -> None:
    """Run a command in a process of its own and end the process.

    Args:
        command: the command's name, for the files in ``tools/``; none: the first word of the command line.
    """
    start_tool()  # before the imports
    from detect.cli.main import run_command
    from detect.runtime.cli import run_tool

    run_tool(lambda: run_command(*command))
