"""Which of the many images in a file are wanted, and how gray values of a volume are shown."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

Plane = Literal["axial", "coronal", "sagittal"]

# Centre and width in Hounsfield units, as radiologists set them at first: radiopaedia.org/articles/windowing-ct.
WINDOWS = {
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "soft-tissue": (50.0, 400.0),
}


@dataclass(frozen=True)
class ViewOptions:
    """How files with many images are taken apart.

    every: every K-th frame, slice or tile, the middle one of each K; 1: all.
    plane: of NIfTI volumes, which way they are cut.
    window: what is shown from black to white: a name of `WINDOWS`, for CT; or centre and width, in the units of the file
        after its slope and intercept; None: what the file says, or the range of its values.
    tile: of slides, the side of a tile in pixels.
    mpp: of slides, the micrometres that a pixel of a tile is wide; None: the slide's own pixels.
    """

    every: int = 1
    plane: Plane = "axial"
    window: str | tuple[float, float] | None = None
    tile: int = 224
    mpp: float | None = 0.5

    def to_text(self) -> str:
        """The options as a line of JSON, from which `from_text` makes them again."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> "ViewOptions":
        """The options that `to_text` has written."""
        found = json.loads(text)
        window = found.pop("window")
        return cls(**found, window=window if window is None or isinstance(window, str) else (window[0], window[1]))

    @property
    def centre_and_width(self) -> tuple[float, float] | None:
        """Of the window; None without one."""
        return WINDOWS[self.window] if isinstance(self.window, str) else self.window


def every_kth(count: int, every: int) -> range:
    """Which of `count` things are taken: the middle one of each `every`; the middle one of all where there are fewer."""
    start = (every - 1) // 2
    return range(start, count, every) if start < count else range(count // 2, count // 2 + 1)
