"""Papers' methods as plug-ins: the rest of the package imports none of them and works without this folder.

Each folder is a paper; ``tables`` are the papers' tables beside what the models here measure.
"""

from __future__ import annotations

PLUGINS: dict[str, dict[str, str]] = {
    "strategies": {
        "trd": "detect.papers.trd.strategy:open_trd",
        "sdpoint": "detect.papers.sdpoint.strategy:open_sdpoint",
    },
    "extras": {
        "instances": "detect.papers.sdpoint.instances:read_extra",
    },
    "networks": {
        "torch": "detect.papers.sdpoint.network:AdjustableNetwork",
    },
    "cost_choices": {
        "cost": "detect.papers.sdpoint.network:choose_cost",
    },
    "cost_sheets": {
        "images": "detect.papers.sdpoint.cost_sheet:write_cost_sheets",
    },
    "instance_reports": {
        "instances": "detect.papers.sdpoint.report:InstanceReport",
    },
    "instance_exports": {
        "menu": "detect.papers.sdpoint.instances:menu_of",
        "activate": "detect.papers.sdpoint.network:with_instance",
    },
    "export_facts": {
        "instance": "detect.papers.sdpoint.network:export_facts",
    },
    "convolutions": {
        "bdsc": "detect.papers.bdsc.convolutions:decouple",
        "bdsc-float": "detect.papers.bdsc.convolutions:decouple",
        "depthwise": "detect.papers.bdsc.convolutions:decouple",
    },
    "onnx_masks": {
        "packed": "detect.papers.bdsc.onnx_masks:pack_masks",
    },
    "option_dependencies": {
        "trd": "detect.papers.trd.schedule:option_dependencies",
        "sdpoint": "detect.papers.sdpoint.strategy:option_dependencies",
    },
}
"""Plug-ins for ``detect.runtime.plugins``: hook → name → module and attribute, imported on use."""
