"""Publish a trained model on the Hugging Face Hub, or fetch one; a folder takes the Hub's place offline.

detect hub push --weights runs/mine/best.pt --to me/my-model --licence apache-2.0
detect hub push --weights runs/mine/best.pt --to ./published --licence mit
detect hub pull --from me/my-model --out mine.safetensors
detect hub pull --from ./published --out mine.safetensors

A published model is model.safetensors, a model card that is filled in from the checkpoint's record, and SHA256SUMS. The
Hub is contacted for USER/NAME only, with the token of `hf auth login` or HF_TOKEN; it needs the extra hub.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detect.cli.output import print_lines
from detect.runtime.startup import heavy_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    about = "publish a checkpoint, in half precision and without the paths of this machine"
    push = commands.add_parser("push", help=about, description=about)
    add = push.add_argument
    add("--weights", required=True, type=Path, metavar="FILE|NAME", help="a checkpoint")
    add("--to", required=True, metavar="USER/NAME|DIR", help="a repository of the Hub, or a new folder (./DIR)")
    add("--licence", required=True, metavar="L", help="of the model, for the card: apache-2.0, mit, cc-by-4.0, other")
    add("--public", action="store_true", help="make a new repository public (default: private)")
    push.set_defaults(subcommand=_push)
    about = "fetch a published model and check its SHA-256"
    pull = commands.add_parser("pull", help=about, description=about)
    add = pull.add_argument
    add("--from", required=True, dest="source", metavar="USER/NAME|DIR", help="a repository of the Hub, or a folder")
    add("--out", required=True, type=Path, metavar="FILE.safetensors", help="a new file")
    add("--sha256", metavar="HEX", help="what the file must have (default: that of the repository's SHA256SUMS)")
    add("--revision", metavar="R", help="branch, tag or commit of the repository (default: the newest)")
    pull.set_defaults(subcommand=_pull)


def run(args: argparse.Namespace) -> None:
    args.subcommand(args)


def _push(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.exporting.hub import PushOptions, push
    print_lines(push(PushOptions(args.weights, args.to, args.licence, args.public)))


def _pull(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.exporting.hub import pull
    print_lines(pull(args.source, args.out, args.sha256, args.revision))
