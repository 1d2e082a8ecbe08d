"""Print a model's graph and what it costs: parameters, multiply-adds, memory, memory traffic, bytes, bottleneck.

python tools/describe.py --model yolov5n-spd
python tools/describe.py --model peleenet csppeleenet --num-classes 1000 --image-size 224 --layers
python tools/describe.py --model cspdarknet53+fpn+spd --picture costs.png
python tools/describe.py --list
"""

from __future__ import annotations

from detect.runtime.startup import start_tool

if __name__ == "__main__":
    start_tool()  # before the imports, which take seconds

import json
from collections.abc import Sequence
from pathlib import Path

from detect.models.cost_picture import draw_costs
from detect.models.listing import listing
from detect.models.profile import ModelProfile, profile_with_file
from detect.models.profile_text import comparison_table, layer_table, row_table, summary
from detect.runtime.cli import ToolParser, positive_int, run_tool


def main() -> None:
    """Parse, profile, print."""
    parser = ToolParser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--model", nargs="+", metavar="NAME|FILE", help="shipped models, backbones, parts put together, or YAML files"
    )
    what.add_argument("--list", action="store_true", help="print the shipped models, backbones, necks and heads")
    parser.add_argument(
        "--image-size", type=positive_int, default=640, metavar="S", help="side of the square input, pixels"
    )
    parser.add_argument("--num-classes", type=positive_int, default=80, metavar="K")
    parser.add_argument("--layers", action="store_true", help="print every convolution, linear layer and pool")
    parser.add_argument("--json", action="store_true", help="print JSON; a list where there are several models")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the BFLOPs of each layer")
    args = parser.parse_args()
    if args.list:
        print(listing())
        return
    profiles = [profile_with_file(name, args.image_size, args.num_classes) for name in args.model]
    if args.picture:
        draw_costs(args.picture, profiles)
    if args.json:
        plain = [profile.to_plain() for profile in profiles]
        print(json.dumps(plain if len(plain) > 1 else plain[0], indent=1))
    else:
        print(_as_text(profiles, args.layers))


def _as_text(profiles: Sequence[ModelProfile], layers: bool) -> str:
    table = layer_table if layers else row_table
    blocks = [f"{table(profile)}\n\n{summary(profile)}" for profile in profiles]
    if len(profiles) > 1:
        blocks.append(comparison_table(profiles))
    return "\n\n".join(blocks)


if __name__ == "__main__":
    run_tool(main)
