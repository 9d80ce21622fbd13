"""Types of figures by zero-shot: which sentence of `figure_types.toml` fits a picture best, beside its caption's words."""

from collections.abc import Callable, Iterable
from itertools import islice

from biomedclip_jax.data.pmc.figure_types import UNKNOWN, all_types, figure_type
from biomedclip_jax.data.statistics.captioned import CaptionedPicture, TypesSeen
from biomedclip_jax.errors import UserError
from biomedclip_jax.pretrained import Pretrained

_AT_ONCE = 512  # pictures given to the model
_SURE = 0.5  # of probability for a type; below it is unknown


def types_seen(
    pictures: Iterable[CaptionedPicture],
    clip: Pretrained,
    name: str,
    progress: Callable[[int], object] | None = None,
) -> TypesSeen:
    """Ask a model for the types of pictures. name: of the model. progress: called with numbers of pictures that are done.

    The type is that of the sentence with more than half of the probability, "unknown" if none has it. Pictures that
    cannot be read are counted. UserError if two of the sentences are one text to the model.
    """
    types = all_types()
    sentences = [one.prompt for one in types]
    found = TypesSeen(name, clip.fingerprint)
    waiting = iter(pictures)
    while some := list(islice(waiting, _AT_ONCE)):
        bad: dict[int, UserError] = {}
        images = [picture.image for picture in some]
        try:
            probabilities = clip.classify(images, sentences, "{}", on_error=bad.__setitem__)
        except UserError as error:  # of the sentences: those of images went to `on_error`
            raise UserError(
                f"{name}: cannot tell the types of figures apart; leave it out, or give another model ({error})"
            ) from error
        if bad and not found.unreadable:
            found.first_unreadable = str(bad[min(bad)])
        found.unreadable += len(bad)
        read = (picture for position, picture in enumerate(some) if position not in bad)
        for picture, row in zip(read, probabilities, strict=True):
            best = int(row.argmax())
            found.pairs[figure_type(picture.caption), types[best].name if row[best] > _SURE else UNKNOWN] += 1
        if progress is not None:
            progress(len(some))
    return found
