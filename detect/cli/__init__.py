"""The command ``detect``: one module per subcommand parses its arguments and imports what it needs when it runs."""

from __future__ import annotations

from detect.runtime.startup import start_tool


def start(*command: str) -> None:
    """Run the command and exit.

    Args:
        command: its name, for the scripts in ``tools/``; default, the first word of the command line.
    """
    start_tool()  # before the imports
    from detect.cli.main import run_command
    from detect.runtime.cli import run_tool

    run_tool(lambda: run_command(*command))
