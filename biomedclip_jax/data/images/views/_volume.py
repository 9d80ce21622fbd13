"""NIfTI volumes as slices, by nibabel: turned as radiologists look at them, in one range of gray for all slices."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from biomedclip_jax.data.images._deep import value_range
from biomedclip_jax.data.images.views.options import Plane, ViewOptions, every_kth
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.support.terminal import say_some

_AXIS: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
_FLAT = 1e-3  # the volume of a voxel of side 1, where its axes do not even span a volume
_MOST_STRETCHED = 100  # pixels are made square: a slice would have so many times more of them
_MOST_SAMPLED = 4_000_000  # values that the range of gray is taken from


class Volume:
    """A NIfTI file, cut along one plane.

    Patients are seen from their feet or from in front, their right at the left of the picture, and from their left side:
    in front is at the left, the head or the front at the top. Pixels are made square where voxels are not.
    """

    def __init__(self, path: Path, options: ViewOptions):
        """Reads the header alone. UserError for a file that is damaged, or no NIfTI."""
        try:
            import nibabel
            from nibabel.affines import voxel_sizes
        except ImportError:
            raise UserError(f"{path}: reading NIfTI needs nibabel: pip install 'biomedclip_jax[volumes]'") from None
        self._path, self._options = path, options
        self._axis = _AXIS[options.plane]
        try:
            self._image: Any = nibabel.load(path)
        except Exception as error:  # nibabel, gzip and the system have many words for it
            hint = "export it again; .nii is not compressed, .nii.gz is"
            raise UserError(f"{path}: not readable as NIfTI ({first_line(error)}); {hint}") from error
        header, shape, affine = self._image.header, self._image.shape, self._image.affine
        if len(shape) < 3 or 0 in shape:
            raise UserError(f"{path}: NIfTI of shape {list(shape)}: expected a volume of three axes or more")
        sides = voxel_sizes(affine)
        if not (np.isfinite(affine).all() and sides.min() > 0 and abs(np.linalg.det(affine[:3, :3] / sides)) > _FLAT):
            raise UserError(f"{path}: its header does not say where its voxels are (qform or sform): export it again")
        turned = nibabel.io_orientation(affine)[:, 0]
        inside = sides[turned != self._axis]
        if inside.max() / inside.min() > _MOST_STRETCHED:
            raise UserError(f"{path}: pixels of {inside[0]:.3g} by {inside[1]:.3g} mm: mend its header (pixdim, sform)")
        self._slices = int(shape[int(np.flatnonzero(turned == self._axis)[0])])
        if not (header.get("qform_code", 1) or header.get("sform_code", 1)):
            say_some(f"{path}: does not say how the patient lies (qform and sform are 0): left and right may be exchanged")

    def names(self) -> list[str]:
        """One for each slice that is wanted; slices are counted from 1, from the left, the back and the feet."""
        return [f"{self._options.plane}={number + 1}" for number in every_kth(self._slices, self._options.every)]

    @cached_property
    def _opened(self) -> tuple[np.ndarray, list[float], tuple[float, float]]:
        """The values [X,Y,Z] or [X,Y,Z,3] from left to right, back to front, feet to head; mm a voxel; black and white."""
        import nibabel
        from nibabel.affines import voxel_sizes

        path = self._path
        try:
            image: Any = nibabel.as_closest_canonical(self._image)
            values = _one_volume(np.asanyarray(image.dataobj), path)
            zooms = [float(each) for each in voxel_sizes(image.affine)]  # pixdim may say something else
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{path}: a damaged or incomplete volume ({first_line(error)}); export it again") from error
        window = self._options.centre_and_width
        if values.ndim == 3:
            return values, zooms, _ends(values, window, path)
        if window is not None:
            raise UserError(f"{path}: --window is for gray values, and this volume has colours; leave it out, or this file")
        return values, zooms, (0.0, 255.0)

    def image(self, name: str) -> Image.Image:
        """A slice, mode "L" or "RGB"."""
        number = int(name.partition("=")[2]) - 1
        values, zooms, (black, white) = self._opened
        cut = np.flip(np.take(values, number, axis=self._axis).swapaxes(0, 1), axis=(0, 1))
        shades = (np.nan_to_num(cut.astype(np.float64), nan=black, posinf=white, neginf=black) - black) / ((white - black) or 1)
        image = Image.fromarray(np.rint(np.clip(shades, 0, 1) * 255).astype(np.uint8))
        across, down = (zoom for axis, zoom in enumerate(zooms) if axis != self._axis)
        finest = min(across, down)
        size = round(image.width * across / finest), round(image.height * down / finest)
        return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def _one_volume(values: np.ndarray, path: Path) -> np.ndarray:
    """[X,Y,Z], or [X,Y,Z,3] of colours."""
    if values.dtype.names is not None and {"R", "G", "B"} <= set(values.dtype.names):
        values = np.stack([values[channel] for channel in "RGB"], axis=-1)
        if values.ndim == 4:
            return values
    elif values.ndim > 3 and max(values.shape[3:]) > 1:
        if values.ndim > 4:
            raise UserError(f"{path}: NIfTI of shape {list(values.shape)}: expected a volume, or volumes over time")
        say_some(f"{path}: {values.shape[3]} volumes (over time?): the first is used")
        values = values[..., 0]
    else:
        values = values.reshape(values.shape[:3])
    if values.ndim != 3 or values.size == 0 or values.dtype.kind not in "iuf":
        raise UserError(f"{path}: NIfTI of shape {list(values.shape)}, {values.dtype}: expected a volume of gray values or RGB")
    return values


def _ends(values: np.ndarray, window: tuple[float, float] | None, path: Path) -> tuple[float, float]:
    """The values that are black and white: of the window, else the range of the whole volume without what lies far outside."""
    if window is not None:
        return window[0] - window[1] / 2, window[0] + window[1] / 2
    step = max(1, values.size // _MOST_SAMPLED)
    sample = values[..., step // 2 % values.shape[2] :: step].reshape(len(values), -1)  # whole slices, so that neighbours stay
    if sample.dtype.kind == "f":
        known = np.isfinite(sample)
        if not known.any():
            raise UserError(f"{path}: no value of it is a number; leave it out")
        sample = np.where(known, sample, np.median(sample[known]))
    black, white = value_range(sample)
    return float(black), float(white)
