"""LC25000: five folders of 5,000 JPEGs, 768 x 768, made of 1,250 originals by rotating and flipping.

Which images come of one original is not recorded, so any random split leaks: all of it is "test", as in BiomedCLIP.
"""

from collections.abc import Sequence
from pathlib import Path

from biomedclip_jax.data.benchmarks.files import NotOnDisk, check_split
from biomedclip_jax.data.images.load import find_images
from biomedclip_jax.data.labelled.types import Labelled, labelled_files

_FOLDERS = {"lung": ("lung_aca", "lung_n", "lung_scc"), "colon": ("colon_aca", "colon_n")}


def read_lc25000(name: str, where: Path, split: str, classes: Sequence[str], organ: str) -> Labelled:
    """All images of an organ ("lung" or "colon"). NotOnDisk for a class folder that is not there."""
    check_split(name, split, ("test",))
    roots = [where / "lung_colon_image_set" / f"{organ}_image_sets", where / f"{organ}_image_sets", where]
    folders = _FOLDERS[organ]
    root = next((root for root in roots if any((root / folder).is_dir() for folder in folders)), roots[0])
    found = []
    for position, folder in enumerate(folders):
        if not (root / folder).is_dir():
            raise NotOnDisk(f"{root}: no folder {folder}")
        found += [(path, position) for path in find_images(root / folder)]
    return labelled_files(name, classes, found)
