"""A window that shows what is found while it is found."""

from __future__ import annotations

import os
import sys

import cv2
import numpy as np

from detect.errors import InputError

_TITLE = "detect"
_STOP_KEYS = (ord("q"), 27)  # q and Escape


class Window:
    """Shows one image after the other.

    Raises:
        InputError: OpenCV was installed without windows, or there is no display.
    """

    def __init__(self) -> None:
        if not cv2.currentUIFramework():
            raise InputError(
                "--show: this OpenCV has no windows; pip uninstall opencv-python-headless, then pip install "
                "opencv-python"
            )
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise InputError("--show: there is no display (DISPLAY is not set)")
        self.is_open = True
        """Until q or Escape is pressed, or the window is closed."""

    def show(self, image_rgb: np.ndarray, *, wait: bool) -> None:
        """Show an image.

        Args:
            image_rgb: (H, W, 3) uint8.
            wait: for a key, as a single image needs it.
        """
        cv2.imshow(_TITLE, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(0 if wait else 1) & 0xFF
        self.is_open = key not in _STOP_KEYS and cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) >= 1
