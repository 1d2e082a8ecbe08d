"""Print a model's graph, parameters, multiply-adds and activation memory.

python tools/describe.py --model yolov5n-spd
"""

from __future__ import annotations

import json

from detect.models.definition import shipped_models
from detect.models.profile import profile_model
from detect.runtime.cli import ToolParser, positive_int, run_tool


def main() -> None:
    """Parse, profile, print."""
    parser = ToolParser(__doc__)
    parser.add_argument(
        "--model", required=True, metavar="NAME|FILE", help=f"one of {', '.join(shipped_models())}, or a YAML"
    )
    parser.add_argument(
        "--image-size", type=positive_int, default=640, metavar="S", help="side of the square input, pixels"
    )
    parser.add_argument("--num-classes", type=positive_int, default=80, metavar="K")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    profile = profile_model(args.model, args.image_size, args.num_classes)
    print(json.dumps(profile.to_plain(), indent=1) if args.json else profile.table())


if __name__ == "__main__":
    run_tool(main)
