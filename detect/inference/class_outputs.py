"""What a prediction run of a classifier leaves: drawn images, JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detect.data.images import write_image
from detect.evaluation.classification import top_entries
from detect.inference.class_drawing import draw_classification
from detect.inference.outputs import output_names
from detect.runtime.distributed import all_gather_texts, barrier, is_main_process
from detect.runtime.files import write_json
from detect.safety.ownership import OutputFolder
from detect.structures import Classification


class ClassWriter:
    """Writes what a list of images shows below a folder.

    Of several processes each writes the images that it looks at, and the first the table of all.

    Args:
        folder: where to; made when the first file is written.
        paths: all images of the run. Files are called after their paths below the folder that they have in common.
        json: also write ``predictions.json``: for each image ``file_name`` and ``top5``, its most probable classes
            (``detect.evaluation.classification.top_entries``).

    Raises:
        InputError: something would be replaced that is not from an earlier run, an image of ``paths`` for example.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], *, json: bool = False) -> None:
        self._folder = OutputFolder(folder)
        self._json = json
        self._names = output_names(paths)
        places = [f"{name}.jpg" for name in self._names.values()]
        self._folder.check([*places, "predictions.json"] if json else places, paths)
        self._entries: list[dict[str, Any]] = []
        self._places = {str(path): number for number, path in enumerate(paths)}
        barrier("the start of the predictions")  # where all have seen the folder as it was

    def add(self, path: Path, image_rgb: np.ndarray, found: Classification) -> Path:
        """Write what belongs to one image.

        Args:
            path: one of the paths of the run.
            image_rgb: (H, W, 3) uint8.
            found: what it shows.

        Returns:
            The drawn image's file.
        """
        drawn = self._folder.claim(f"{self._names[path]}.jpg")
        write_image(drawn, draw_classification(image_rgb, found))
        if self._json:
            self._entries.append({"file_name": str(path), "top5": top_entries(found)})
        return drawn

    def finish(self) -> list[str]:
        """Write what belongs to all images, and say in one line each where things are."""
        places = [f"drawn images: {self._folder.path}"]
        if self._json:
            parts = all_gather_texts(json.dumps(self._entries))
            if is_main_process():
                entries = [entry for part in parts for entry in json.loads(part)]
                entries.sort(key=lambda entry: self._places[entry["file_name"]])
                write_json(self._folder.claim("predictions.json"), entries)
            places.append(f"classes of all images: {self._folder.path / 'predictions.json'}")
        return places
