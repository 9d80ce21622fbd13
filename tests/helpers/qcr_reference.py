"""QCR in PyTorch, put together from its description with PyTorch's own GRU, convolutions and weight norm."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from biomedclip_jax.config import QCRConfig

_ONE_LENGTH: Any = None  # of a whole matrix; PyTorch's hints speak of numbers only


def _normed(d_in: int, d_out: int) -> nn.Module:
    return weight_norm(nn.Linear(d_in, d_out), dim=_ONE_LENGTH)


class _Question(nn.Module):
    """Pooled states of the words, and an MLP of three layers with dropout (here: none) before its second ReLU."""

    def __init__(self, c: QCRConfig, widths: tuple[int, int, int]):
        super().__init__()
        self.words = nn.Embedding(len(c.words) + 1, c.word_width, padding_idx=len(c.words))
        self.gru = nn.GRU(c.word_width, c.width, batch_first=True)
        both = c.word_width + c.width
        self.tanh_gate, self.sigmoid_gate = nn.Linear(both, c.width), nn.Linear(both, c.width)
        self.weight = nn.Linear(c.width, 1)
        self.fc1, self.fc2, self.fc3 = (
            nn.Linear(a, b) for a, b in zip((c.width, *widths), widths, strict=False)
        )  # fmt: skip

    def forward(self, tokens: Any) -> Any:
        words = self.words(tokens)
        states, _ = self.gru(words)
        both = torch.cat([words, states], -1)
        gated = torch.tanh(self.tanh_gate(both)) * torch.sigmoid(self.sigmoid_gate(both))
        attention = F.softmax(self.weight(gated).squeeze(-1), 1)
        pooled = torch.bmm(attention.unsqueeze(1), states).squeeze(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(pooled)))))


class _Glimpse(nn.Module):
    def __init__(self, c: QCRConfig, d_image: int):
        super().__init__()
        self.image, self.question, self.out = _normed(d_image, c.width), _normed(c.width, c.width), _normed(c.width, c.width)


class _Branch(nn.Module):
    """Objects have an axis of their own here, of length 1, as in bilinear attention for several of them."""

    def __init__(self, c: QCRConfig, answers: int, d_image: int):
        super().__init__()
        self.image, self.question = _normed(d_image, 3 * c.width), _normed(c.width, 3 * c.width)
        self.direction = nn.Parameter(torch.randn(1, c.glimpses, 1, 3 * c.width))
        self.length = nn.Parameter(torch.rand(()) * 20)
        self.bias = nn.Parameter(torch.randn(1, c.glimpses, 1, 1))
        self.glimpses = nn.ModuleList(_Glimpse(c, d_image) for _ in range(c.glimpses))
        self.fc1, self.fc2 = _normed(c.width, 2 * c.width), _normed(2 * c.width, answers)

    def forward(self, image: Any, states: Any, modulation: Any) -> Any:
        image = image.unsqueeze(1)
        v, q = F.relu(self.image(image)), F.relu(self.question(states))
        h_mat = self.direction * (self.length / self.direction.norm())
        logits = torch.matmul(v.unsqueeze(1) * h_mat, q.unsqueeze(1).transpose(2, 3)) + self.bias  # [B, G, 1, N]
        attention = F.softmax(logits.flatten(2), 2).view(logits.shape)
        glimpse: Any
        for number, glimpse in enumerate(self.glimpses):
            v, q = F.relu(glimpse.image(image)), F.relu(glimpse.question(states))
            joint = torch.einsum("bvh,bvn,bnh->bh", v, attention[:, number], q)
            states = glimpse.out(joint.unsqueeze(1)) + states
        return self.fc2(F.relu(self.fc1(states.sum(1) * modulation)))


class SmallNet(nn.Module):
    """The four convolutions of MAML, each with its batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        for n in range(1, 5):
            setattr(self, f"conv{n}", nn.Conv2d(1 if n == 1 else 64, 64, 3, 2, 1))
            norm: Any = nn.BatchNorm2d(64, eps=1e-5)
            nn.init.normal_(norm.running_mean, 0, 0.2)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
            setattr(self, f"norm{n}", norm)

    def forward(self, x: Any) -> Any:
        for n in range(1, 5):
            x = getattr(self, f"norm{n}")(F.relu(getattr(self, f"conv{n}")(x)))
        return x.mean((2, 3))


class AutoEncoder(nn.Module):
    """Under the names of pretrained_ae.pth, besides `features`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 64, 3, padding=1), nn.Conv2d(64, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 16, 3, padding=1)
        self.tran_conv1 = nn.ConvTranspose2d(16, 32, 3, stride=2, padding=1, output_padding=1)
        self.conv4 = nn.Conv2d(32, 32, 3, padding=1)
        self.tran_conv2 = nn.ConvTranspose2d(32, 64, 3, stride=2, padding=1, output_padding=1)
        self.conv5 = nn.Conv2d(64, 1, 3, padding=1)

    def encoded(self, x: Any) -> Any:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return F.relu(self.conv3(F.max_pool2d(F.relu(self.conv2(x)), 2)))

    def decoded(self, x: Any) -> Any:
        x = F.relu(self.conv4(F.relu(self.tran_conv1(x))))
        return torch.sigmoid(self.conv5(F.relu(self.tran_conv2(x))))


class Reference(nn.Module):
    """The whole, in evaluation mode. Features of CLIP are given from outside."""

    def __init__(self, c: QCRConfig, embed_width: int):
        super().__init__()
        d_image = sum(embed_width if kind == "clip" else 64 for kind in c.vision)
        self.config = c
        self.maml = SmallNet() if "maml" in c.vision else None
        self.autoencoder = AutoEncoder() if "autoencoder" in c.vision else None
        self.features = nn.Linear(16 * 32 * 32, 64)
        self.words = nn.Embedding(len(c.words) + 1, c.word_width, padding_idx=len(c.words))
        self.smoothed = nn.Embedding(len(c.words) + 1, c.word_width, padding_idx=len(c.words))
        self.gru = nn.GRU(2 * c.word_width, c.width, batch_first=True)
        self.modulation = _Question(c, (2 * c.width, c.width, c.width))
        self.types = _Question(c, (c.width // 4, c.width // 16, 2))
        self.closed = _Branch(c, c.closed_answers, d_image)
        self.open = _Branch(c, len(c.answers) - c.closed_answers, d_image)
        self.eval()

    def forward(self, images: np.ndarray, tokens: np.ndarray, clip_features: np.ndarray | None) -> tuple[Any, Any, Any]:
        """Logits of the closed and of the open answers, and the squared error of each auto-encoder's image."""
        ids, seen, error = torch.from_numpy(tokens).long(), [], None
        for kind in self.config.vision:
            if kind == "clip":
                seen.append(torch.from_numpy(np.array(clip_features)))
            elif kind == "maml":
                assert self.maml is not None
                seen.append(self.maml(self._gray(images, 84)))
            else:
                assert self.autoencoder is not None
                pixels = self._gray(images, 128)
                code = self.autoencoder.encoded(pixels)
                seen.append(self.features(code.flatten(1)))
                error = ((self.autoencoder.decoded(code) - pixels) ** 2).mean((1, 2, 3))
        states, _ = self.gru(torch.cat([self.words(ids), self.smoothed(ids)], 2))
        given = torch.cat(seen, 1), states, self.modulation(ids)
        return self.closed(*given), self.open(*given), error

    def _gray(self, images: np.ndarray, side: int) -> Any:
        colours = images * np.array(self.config.std, np.float32) + np.array(self.config.mean, np.float32)
        luma = torch.from_numpy((colours @ np.array([0.299, 0.587, 0.114], np.float32)).clip(0, 1))[:, None]
        return F.interpolate(luma, (side, side), mode="bilinear", antialias=True, align_corners=False)


def ours(theirs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{path: array} of a `QCR`, from the reference's state dict or from its gradients by the same names."""
    found: dict[str, np.ndarray] = {}
    for name, x in theirs.items():
        *owner, last = name.replace("parametrizations.weight.original0", "scale").split(".")
        if last in ("original1",):
            owner, last = owner[:-2], "weight"
        if owner[0] in ("closed", "open"):
            owner = [f"{owner[0]}/attention" if len(owner) == 1 or owner[1] in ("image", "question") else owner[0], *owner[1:]]
            if "glimpses" in owner:
                owner = [owner[0], f"glimpse{owner[2]}", *owner[3:]]
        _put(found, owner, last, x)
    return found


_PLAIN = {"length": "scale", "running_mean": "mean", "running_var": "variance"}
_LAYERS = {"tran_conv1": "up1", "tran_conv2": "up2"}


def _put(found: dict[str, np.ndarray], owner: list[str], last: str, x: np.ndarray) -> None:
    if owner == ["features"]:
        owner = ["autoencoder", "features"]
        x = x.reshape(64, 16, 32, 32).transpose(0, 2, 3, 1).reshape(64, -1) if last == "weight" else x
    if owner[-1] in ("words", "smoothed"):
        path, last, x = ([] if len(owner) > 1 else ["question"]) + owner, "table", x[:-1]
    elif owner[-1] == "gru":
        path = ([] if len(owner) > 1 else ["question"]) + owner + ["input" if "_ih_" in last else "hidden"]
        last, x = ("kernel", x.T) if last.startswith("weight") else ("bias", x)
    elif owner[-1] in ("tanh_gate", "sigmoid_gate", "weight"):
        path = [*owner[:-1], "pooling", owner[-1]]
        last, x = ("kernel", x.T) if last == "weight" else (last, x)
    elif last == "direction":
        path, last, x = owner, "kernel", x[0, :, 0]
    elif last == "bias" and owner[-1].endswith("attention"):
        path, x = owner, x.reshape(-1)
    elif last == "weight" and x.ndim == 4:
        path, last = [*owner[:-1], _LAYERS.get(owner[-1], owner[-1])], "kernel"
        x = x.transpose(2, 3, 0, 1)[::-1, ::-1] if owner[-1] in _LAYERS else x.transpose(2, 3, 1, 0)
    elif last == "weight" and x.ndim == 2:
        path, last, x = owner, "kernel", x.T
    else:
        path = [*owner[:-1], _LAYERS.get(owner[-1], owner[-1])]
        last = _PLAIN.get(last, "scale" if last == "weight" else last)
    if last != "num_batches_tracked":
        found["/".join([*path, last])] = x
