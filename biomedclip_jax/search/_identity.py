"""Which model an index is of, and that no other searches in it."""

import os
from pathlib import Path

from biomedclip_jax.data.pairs import fingerprint
from biomedclip_jax.errors import UserError
from biomedclip_jax.pretrained import Pretrained
from biomedclip_jax.search._folder import IndexedModel

VIEW = " view"  # the column that says, where a file holds many images, which one it is and how the file is taken apart
SOURCE = " source"  # the column that says where an image is that has no file of its own: SOURCE PART.NUMBER


def identify(clip: Pretrained, name: str, adapter: str | None, dtype: str) -> IndexedModel:
    """What an index says of its model. name, adapter: as the user gave them."""
    where, put_on = (os.path.abspath(each) if each and Path(each).exists() else each for each in (name, adapter))
    assert where is not None
    return IndexedModel(where, put_on, clip.fingerprint, _preprocessing(clip), dtype, clip.config.embed_width)


def check_same_model(folder: object, indexed: IndexedModel, clip: Pretrained, name: str) -> None:
    """UserError unless `clip`, which was read from `name`, is the model of the index in `folder`."""
    if clip.fingerprint != indexed.fingerprint:
        raise UserError(
            f"{name}: another model than that of {folder}, which was made with {indexed.name}; vectors of two models cannot be "
            "compared: give that model, or index again with this one into another folder"
        )
    if _preprocessing(clip) != indexed.preprocessing:
        raise UserError(
            f"{name}: has the weights of the model that {folder} was made with ({indexed.name}), but other preprocessing or "
            "another tokenizer length; give that model, or index again into another folder"
        )


def _preprocessing(clip: Pretrained) -> str:
    return fingerprint([str(clip.config), str(clip.processor.config)])
