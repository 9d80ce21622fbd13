"""Tensors on disk by name: safetensors, and PyTorch's `.bin` and `.pt`, as numpy arrays."""

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from biomedclip_jax.errors import UserError, first_line

WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)


class TensorFile(Mapping[str, np.ndarray]):
    """Tensors of one file by name. `shape`, and asking whether a name is there, read no tensor."""

    def __contains__(self, name: object) -> bool:  # Mapping's own would read the tensor
        raise NotImplementedError

    def shape(self, name: str) -> tuple[int, ...]:
        raise NotImplementedError


class SafetensorsFile(TensorFile):
    """A safetensors file; a tensor is read when it is asked for."""

    def __init__(self, path: Path):
        from safetensors import SafetensorError, safe_open

        try:
            self._file = safe_open(path, framework="numpy")
            self._names = dict.fromkeys(self._file.keys())
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a readable safetensors file ({error}); fetch or write it again") from error

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._file.get_tensor(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class TorchFile(TensorFile):
    """A PyTorch checkpoint: a state dict, or one under "state_dict" with "module." before names.

    Needs torch. Only tensors are unpickled (`weights_only`), so a hostile file cannot run code.
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
            reason = first_line(error)[:200]
            raise UserError(f"{path}: not a readable PyTorch weights file ({reason}); fetch it again") from error
        if isinstance(state, Mapping) and "state_dict" in state:
            state = state["state_dict"]
        if not isinstance(state, Mapping):
            raise UserError(f"{path}: expected a state dict (names to tensors), found {type(state).__name__}")
        self._tensors = {name.removeprefix("module."): t for name, t in state.items() if isinstance(t, torch.Tensor)}

    @staticmethod
    def _load(torch, path: Path):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files from before torch 1.6 cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._tensors[name]
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def find_weights(folder: Path) -> Path:
    """The weight file of a folder; safetensors before PyTorch's pickle."""
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: no weights here; expected one of {', '.join(WEIGHT_FILES)}")


def read_weights(path: Path) -> TensorFile:
    """Open a weight file by its suffix; tensors are read on demand."""
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """tensors to `path`, contiguous, with the metadata that transformers asks for."""
    from safetensors.numpy import save_file

    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    save_file(contiguous, path, metadata={"format": "pt"})
    # safetensors makes a file for its owner alone; a model folder is as readable as the files beside it
    path.chmod(stat.S_IMODE(path.parent.stat().st_mode) & 0o666)


def write_torch(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """tensors to `path` as a PyTorch state dict. Needs torch."""
    try:
        import torch
    except ImportError:
        raise UserError(f"{path.name}: writing a .bin file needs torch: pip install 'biomedclip_jax[torch]'") from None
    state = {name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}
    try:
        torch.save(state, path)
    except RuntimeError as error:  # a full disk: torch hides what the system said
        raise OSError(str(error).partition("\n")[0]) from error
