"""What QCR starts from: word vectors, and the weights of its two small image networks as MEVF and QCR published them."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from biomedclip_jax.config import CLIPConfig, QCRConfig
from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.interop._word_vectors import read_word_vectors, smoothed
from biomedclip_jax.interop.model import Params
from biomedclip_jax.interop.tensor_files import read_weights

_Flat = dict[str, np.ndarray]  # by path below "answering"

# the names of pretrained_ae.pth; "up" are transposed convolutions
_AUTOENCODER = {name: name for name in ("conv1", "conv2", "conv3", "conv4", "conv5")} | {
    "tran_conv1": "up1",
    "tran_conv2": "up2",
}
# what NumPy arrays are pickled by, in files of Python 2 and 3
_ARRAYS = {"numpy": ("ndarray", "dtype"), "numpy.core.multiarray": ("_reconstruct",), "_codecs": ("encode",)}
_ARRAYS["numpy._core.multiarray"] = _ARRAYS["numpy.core.multiarray"]


def starting_answering(config: CLIPConfig, params: Params, questions: Sequence[Sequence[int]]) -> tuple[Params, list[str]]:
    """The parameters with QCR's starting values in them, and lines that say what was read; those of other models as they are.

    questions: the word ids of the training questions, uncut (`QuestionWords.whole`). The second copy of the word vectors
    becomes the smoothed one, with or without a file of vectors. UserError for a file that is missing or does not fit.
    """
    c = config.answering
    if not isinstance(c, QCRConfig):
        return params, []
    own: dict[str, Any] = flatten_dict(params["answering"], sep="/")
    new, said = dict[str, np.ndarray](), list[str]()
    vectors = np.array(own["question/words/table"], np.float32)
    if c.glove is not None:
        vectors, missing = read_word_vectors(Path(c.glove), c.words, c.word_width)
        new |= {f"{part}/words/table": vectors for part in ("question", "modulation", "types")}
        said.append(f"{c.glove}: vectors of {len(c.words) - len(missing)} of {len(c.words)} words; the others start as zeros")
    new["question/smoothed/table"] = smoothed(vectors, questions)
    for kind, path, read in (("maml", c.maml, read_maml), ("autoencoder", c.autoencoder, read_autoencoder)):
        if path is not None and kind not in c.vision:
            raise UserError(f"QCRConfig.{kind} = {path!r}: expected None, as QCRConfig.vision = {c.vision!r} does not use it")
        if path is not None:
            new |= _checked(Path(path), read(Path(path)), own)
            said.append(f"{path}: weights of {kind}")
    return params | {"answering": unflatten_dict(own | new, sep="/")}, said


def _checked(path: Path, found: _Flat, own: dict[str, Any]) -> _Flat:
    """UserError unless each array has the shape of the parameter that it is for, and finite numbers."""
    for name, x in found.items():
        if x.shape != own[name].shape:
            raise UserError(f"{path}: {name} has the shape {x.shape}, expected {own[name].shape}; it is of another network")
        if not np.isfinite(x).all():
            raise UserError(f"{path}: {name} has numbers that are not finite; fetch the file again")
    return {name: np.asarray(x, np.float32) for name, x in found.items()}


def read_maml(path: Path) -> _Flat:
    """{path below "answering": array} of pretrained_maml.weights: a pickled dict of conv1 to conv4 [3, 3, in, out], b1 to b4.

    Only arrays are unpickled, so that a hostile file cannot run code. UserError for another content.
    """
    names = {f"conv{n}": f"maml/conv{n}/kernel" for n in range(1, 5)} | {f"b{n}": f"maml/conv{n}/bias" for n in range(1, 5)}
    try:
        with path.open("rb") as file:
            content = _Arrays(file, encoding="latin1").load()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected pretrained_maml.weights (QCRConfig.maml)") from None
    except Exception as error:  # unpickling raises a dozen kinds; each means the same to the user
        raise UserError(f"{path}: not a pickled dict of arrays ({first_line(error)[:200]}); fetch it again") from error
    return _renamed(path, content, names)


class _Arrays(pickle.Unpickler):
    """Unpickles NumPy arrays and what Python has built in, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in _ARRAYS.get(module, ()):
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is not unpickled, as it could run code")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_autoencoder(path: Path) -> _Flat:
    """{path below "answering": array} of pretrained_ae.pth, a PyTorch state dict. UserError for another content."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected pretrained_ae.pth (QCRConfig.autoencoder)")
    file = read_weights(path)
    names = {f"{theirs}.weight": f"autoencoder/{ours}/kernel" for theirs, ours in _AUTOENCODER.items()}
    names |= {f"{theirs}.bias": f"autoencoder/{ours}/bias" for theirs, ours in _AUTOENCODER.items()}
    found = _renamed(path, {name: file[name] for name in file}, names)
    for name in [name for name in found if name.endswith("kernel")]:
        turned = "/up" in name  # [in, out, 3, 3], and turned by 180 degrees
        x = found[name]
        found[name] = x.transpose(2, 3, 0, 1)[::-1, ::-1] if turned else x.transpose(2, 3, 1, 0)
    return found


def _renamed(path: Path, content: Any, names: dict[str, str]) -> _Flat:
    """The arrays under our names. UserError for one that is missing, has other axes, or that we have no place for."""
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a dict of arrays, found {type(content).__name__}")
    if lacking := [name for name in names if name not in content]:
        raise UserError(f"{path}: {lacking[0]} is missing; expected {', '.join(names)}")
    if more := [name for name in content if name not in names]:
        raise UserError(f"{path}: {more[0]!r} has no place in this network; expected {', '.join(names)} alone")
    found = {ours: np.asarray(content[theirs]) for theirs, ours in names.items()}
    for (theirs, ours), x in zip(names.items(), found.values(), strict=True):
        if x.ndim != (4 if ours.endswith("kernel") else 1) or x.dtype.kind != "f":
            raise UserError(f"{path}: {theirs} is {x.dtype} of shape {x.shape}; expected the weights of a 3 x 3 convolution")
    return found
