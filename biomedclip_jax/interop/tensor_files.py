"""Tensors on disk by name: safetensors, and PyTorch's `.bin` and `.pt`, as numpy arrays."""

import json
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from biomedclip_jax.errors import UserError, first_line
from biomedclip_jax.interop._state_dict import state_dict_in

WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "model.safetensors.index.json",  # of several files, as transformers splits what is large
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_INDEX = ".index.json"
_POINTER = b"version https://git-lfs"
_SAFETENSORS_KINDS = ("F32", "F16", "BF16", "F64", "I64", "I32", "I16", "I8", "U8", "U16", "U32", "U64", "BOOL")


class TensorFile(Mapping[str, np.ndarray]):
    """Tensors of one file by name. `shape`, and asking whether a name is there, read no tensor."""

    def __contains__(self, name: object) -> bool:  # Mapping's own would read the tensor
        raise NotImplementedError

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes of the axes of the tensor with this name, without reading it."""
        raise NotImplementedError


class SafetensorsFile(TensorFile):
    """A safetensors file; a tensor is read when it is asked for."""

    def __init__(self, path: Path):
        from safetensors import SafetensorError, safe_open

        try:
            self._path = path
            self._file = safe_open(path, framework="numpy")
            self._names = dict.fromkeys(self._file.keys())
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a readable safetensors file ({error}); fetch or write it again") from error

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        kind = self._file.get_slice(name).get_dtype()
        if kind not in _SAFETENSORS_KINDS:
            raise UserError(
                f"{self._path}: {name} has the number type {kind}, which is not supported; supported: "
                f"{', '.join(_SAFETENSORS_KINDS[:4])}: write the file again in one of these"
            )
        return self._file.get_tensor(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes of the axes of the tensor with this name, without reading it."""
        return tuple(self._file.get_slice(name).get_shape())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class TorchFile(TensorFile):
    """A PyTorch checkpoint: a state dict, or one beside epoch and optimizer (`_state_dict.py`); or a TorchScript archive.

    A file of one bare tensor has it under the name "tensor". Needs torch. Only tensors and NumPy's numbers are unpickled
    (`weights_only`), so a hostile file cannot run code; TorchScript archives hold no Python.
    """

    def __init__(self, path: Path):
        try:
            import torch
        except ImportError:
            raise UserError(
                f"{path}: reading a PyTorch file needs torch: pip install 'biomedclip_jax[torch]' "
                "(or convert it once: the .safetensors form needs nothing)"
            ) from None
        try:
            state = self._load(torch, path)
        except Exception as error:  # torch raises a dozen kinds here; each means the same to the user
            objects = re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)", str(error))
            if objects:
                raise UserError(
                    f"{path}: holds Python objects ({objects[1]}), which are not unpickled, as they could run code; save "
                    "model.state_dict() in their place"
                ) from error
            reason = first_line(error)[:200]
            raise UserError(f"{path}: not a readable PyTorch weights file ({reason}); fetch it again") from error
        if isinstance(state, torch.Tensor):
            state = {"tensor": state}
        if not isinstance(state, Mapping):
            raise UserError(f"{path}: expected a state dict (names to tensors), found {type(state).__name__}")
        self._path = path
        self._tensors = state_dict_in(state, path, lambda x: isinstance(x, torch.Tensor))

    @staticmethod
    def _load(torch, path: Path):
        if _is_torchscript(path):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.jit is deprecated, the files written with it are not
                return torch.jit.load(path, map_location="cpu").state_dict()
        with torch.serialization.safe_globals(_numpy_numbers()):
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # files from before torch 1.6 cannot be mapped
                return torch.load(path, map_location="cpu", weights_only=True)

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._tensors[name].detach()
        try:
            return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        except (RuntimeError, TypeError) as error:  # quantised, sparse, or on no device
            raise UserError(
                f"{self._path}: {name} has the number type {tensor.dtype}, which is not supported ({first_line(error)[:80]}); "
                "write the file again in float32"
            ) from error

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes of the axes of the tensor with this name, without reading it."""
        return tuple(self._tensors[name].shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _numpy_numbers() -> list[Any]:
    """What training scripts leave beside a state dict, such as the best loss: NumPy scalars, under NumPy 1's and 2's names."""
    scalar = np.float64(0).__reduce__()[0]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*names, np.dtype, *(type(np.dtype(kind)) for kind in ("float16", "float32", "float64", "int32", "int64", "bool"))]


class Parts(TensorFile):
    """Several files as one, the names of each behind a prefix."""

    def __init__(self, files: dict[str, TensorFile]):
        self._files = files

    def _find(self, name: str) -> tuple[TensorFile, str]:
        prefix, _, rest = name.partition(".")
        return self._files[prefix], rest

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes of the axes of the tensor with this name, without reading it."""
        file, rest = self._find(name)
        return file.shape(rest)

    def __getitem__(self, name: str) -> np.ndarray:
        file, rest = self._find(name)
        return file[rest]

    def __contains__(self, name: object) -> bool:
        prefix, _, rest = str(name).partition(".")
        return prefix in self._files and rest in self._files[prefix]

    def __iter__(self) -> Iterator[str]:
        return (f"{prefix}.{name}" for prefix, file in self._files.items() for name in file)

    def __len__(self) -> int:
        return sum(map(len, self._files.values()))


class ShardedFile(TensorFile):
    """The files that an index of transformers names, as one; each is opened when a tensor of it is asked for."""

    def __init__(self, index: Path):
        try:
            content = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            self._where = {name: index.parent / file for name, file in content.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{index}: not a readable index of weight files ({first_line(error)}); fetch it again") from error
        for path in dict.fromkeys(self._where.values()):
            if not path.is_file():
                raise UserError(f"{path}: no such file; {index.name} names it: fetch it, too")
        self._files: dict[Path, TensorFile] = {}

    def _file(self, name: str) -> TensorFile:
        path = self._where[name]
        if path not in self._files:
            self._files[path] = read_weights(path)
        if name not in self._files[path]:
            raise UserError(f"{path}: no tensor {name}, which its index names; fetch it again")
        return self._files[path]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._file(name)[name]

    def __contains__(self, name: object) -> bool:
        return name in self._where

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes of the axes of the tensor with this name, without reading it."""
        return self._file(name).shape(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def with_shards(name: str) -> tuple[str, ...]:
    """A name of `WEIGHT_FILES` and, of an index, the pattern of the files that belong to it."""
    if not name.endswith(_INDEX):
        return (name,)
    stem, _, suffix = name.removesuffix(_INDEX).rpartition(".")
    return name, f"{stem}-*.{suffix}"


def find_weights(folder: Path) -> Path:
    """The weight file of a folder; safetensors before PyTorch's pickle."""
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path.name for path in folder.glob("*") if path.suffix in (".safetensors", ".bin", ".pt", ".pth", ".ckpt"))
    here = f" ({', '.join(others[:5])} here: rename what is meant)" if others else ""
    raise UserError(f"{folder}: no weights here; expected one of {', '.join(WEIGHT_FILES)}{here}")


def read_weights(path: Path) -> TensorFile:
    """Open a weight file by its suffix; tensors are read on demand."""
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise UserError(f"{path}: a pointer of Git LFS in place of the weights; fetch them with `git lfs pull`")
    if path.name.endswith(_INDEX):
        return ShardedFile(path)
    if path.suffix == ".ckpt":
        from biomedclip_jax.interop._lightning import LightningFile

        return LightningFile(path)
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], **metadata: str) -> None:
    """tensors to `path`, contiguous, with the metadata that transformers asks for, and more."""
    from safetensors.numpy import save_file

    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    save_file(contiguous, path, metadata={"format": "pt"} | metadata)
    # safetensors makes a file for its owner alone; a model folder is as readable as the files beside it
    path.chmod(stat.S_IMODE(path.parent.stat().st_mode) & 0o666)


def write_torch(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """tensors to `path` as a PyTorch state dict. Needs torch."""
    try:
        import torch
    except ImportError:
        raise UserError(f"{path.name}: writing a .bin file needs torch: pip install 'biomedclip_jax[torch]'") from None
    state = {name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}
    save_torch(path, state)


def save_torch(path: Path, content: Any) -> None:
    """`torch.save`, with an OSError where the disk is full: torch hides what the system said."""
    import torch

    try:
        torch.save(content, path)
    except RuntimeError as error:
        raise OSError(str(error).partition("\n")[0]) from error
