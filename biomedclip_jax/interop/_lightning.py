"""Checkpoints of PyTorch Lightning: the state dict of a module, and what the module was made with. Needs torch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from biomedclip_jax.errors import UserError
from biomedclip_jax.files import write_file
from biomedclip_jax.interop.tensor_files import TorchFile, save_torch

_VERSION = "2.1.2"  # of the layout: Lightning asks for one, and adapts what is older


class _Unread:
    """Stands for an object of a foreign class. It keeps nothing, and nothing of the class is imported or run."""

    def __new__(cls, *_: Any, **__: Any) -> "_Unread":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


@contextmanager
def _stand_ins(path: Path) -> Iterator[None]:
    """While this lasts, torch's safe reader (`weights_only`) takes the file's foreign classes for `_Unread`, and goes on."""
    try:
        import torch

        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)  # from the opcodes; nothing is unpickled
    except Exception:  # no torch, or no such file: `TorchFile` says so in its own words
        yield
        return
    foreign = [name for name in names if not name.startswith("numpy.")]  # `TorchFile` knows which of those are numbers
    stand_ins: list[Any] = [(dict if name.endswith(".AttributeDict") else _Unread, name) for name in foreign]
    with torch.serialization.safe_globals(stand_ins):
        yield


class LightningFile(TorchFile):
    """The tensors under "state_dict"; hyper_parameters: what the module saved of its arguments, {} if it saved none."""

    def __init__(self, path: Path):
        with _stand_ins(path):
            super().__init__(path)
            self._tensors = {name.removeprefix("module."): tensor for name, tensor in self._tensors.items()}
            import torch

            whole = self._load(torch, path)  # mapped: this reads no tensor
        found = whole.get("hyper_parameters") if isinstance(whole, Mapping) else None
        self.hyper_parameters: dict[str, Any] = dict(found) if isinstance(found, Mapping) else {}

    def tensor(self, name: str) -> Any:
        """The torch tensor itself, in the precision of the file."""
        return self._tensors[name]

    def cast(self, name: str, array: Any) -> Any:
        """A NumPy array as a torch tensor of the shape and precision that `name` has."""
        import torch

        own = self._tensors[name]
        return torch.from_numpy(array.copy()).reshape(own.shape).to(own.dtype)


def write_lightning(path: Path, state: Mapping[str, Any], hyper_parameters: Mapping[str, Any]) -> None:
    """A checkpoint that `load_from_checkpoint` takes, whole or not at all. state: NumPy arrays or torch tensors."""
    try:
        import torch
    except ImportError:
        raise UserError(f"{path}: writing a .ckpt file needs torch: pip install 'biomedclip_jax[torch]'") from None
    tensors = {name: x if isinstance(x, torch.Tensor) else torch.from_numpy(x.copy()) for name, x in state.items()}
    content = {"epoch": 0, "global_step": 0, "pytorch-lightning_version": _VERSION, "state_dict": tensors}
    content["hyper_parameters"] = dict(hyper_parameters)
    write_file(path, lambda partial: save_torch(partial, content))
