"""An image tower with a classifier behind it, trained on all local devices, and the decoded images that it learns from.

A step is one compiled program. Images are decoded once for many epochs, to 8-bit pixels in a temporary file, which the
system keeps in memory where it fits.
"""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array, lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from biomedclip_jax.config import PreprocessConfig
from biomedclip_jax.data.images.load import ImageSource, load_image
from biomedclip_jax.data.images.preprocess import preprocess
from biomedclip_jax.errors import UserError
from biomedclip_jax.evaluation._trainer import State, Tree, begin, sgd, update
from biomedclip_jax.evaluation.probe._head import Head, cross_entropy, standardised, start, updated
from biomedclip_jax.pretrained import Pretrained
from biomedclip_jax.sharding import AXES, as_varying, make_mesh, replicated, rows, shard_axes, sum_over_devices
from biomedclip_jax.support.terminal import progress_bar

_STATISTICS = ("mean", "var")  # of BatchNorm inside a ResNet: measured, not trained


class Tower:
    """The image tower of a model as something to train, with a classifier behind it.

    A `State` has as params the tower's trained leaves, {"tower": {path: array}, "linear": see `head.start`}, and as
    statistics the head's running ones. It goes into `step` and must not be used after it.
    """

    def __init__(
        self,
        clip: Pretrained,
        microbatch: int | None = None,
        devices: list[Any] | None = None,
        loss: Callable[[dict[str, Array], Array, Array, Array], Array] = cross_entropy,
    ):
        """microbatch: images a device at once; None: all of the batch. devices: by default those of this process.

        loss: of the linear layer, standardised features, labels and the rows' weights.
        """
        self._loss = loss
        self._mesh = make_mesh(devices or jax.local_devices())
        self._microbatch = microbatch
        self._graph, state = nnx.split(clip.model)
        self._shapes = {path: _shape(leaf) for path, leaf in flatten_dict(nnx.to_pure_dict(state), sep="/").items()}
        self._whole = whole = replicated(self._mesh)
        image = {path: leaf for path, leaf in flatten_dict(clip.params, sep="/").items() if path.startswith("image")}
        measured = {path for path in image if path.rsplit("/", 1)[-1] in _STATISTICS}
        self._trained = {path: leaf for path, leaf in image.items() if path not in measured}
        self._frozen = jax.device_put({path: image[path] for path in measured}, whole)
        config = clip.processor.config
        self._mean, self._std = jnp.array(config.mean), jnp.array(config.std)
        self._begin = jax.jit(_begin, out_shardings=whole)
        self._step = jax.jit(self._update, donate_argnums=0, out_shardings=whole)
        self._features = jax.jit(self._encode, in_shardings=(whole, rows(self._mesh)), out_shardings=whole)

    def start(self, text: np.ndarray) -> State:
        """The pretrained tower with the zero-shot classifier of weights [C, E]."""
        return self._begin(*jax.device_put((self._trained, start(text)), self._whole))

    def step(
        self, state: State, pixels: np.ndarray, labels: np.ndarray, used: np.ndarray, rate: float, decay: float
    ) -> tuple[State, Array]:
        """The state after one update, and the loss before it.

        pixels: uint8 [B, S, S, 3]. labels: int [B], or of several findings [B, F]. used: float32 [B], 0 leaves a row
        out. rate, decay: of SGD.
        UserError where the batch takes more memory than a device has.
        """
        devices = self._mesh.size
        each = -(-len(labels) // devices)
        at_once = min(self._microbatch or each, each)
        parts = -(-each // at_once)
        sharding = NamedSharding(self._mesh, P(None, AXES))
        batch = [
            jax.device_put(_filled(array, parts * at_once * devices).reshape(parts, -1, *array.shape[1:]), sharding)
            for array in (pixels, labels.astype(np.int32), used)
        ]
        try:
            return self._step(state, self._frozen, batch, jnp.float32(rate), jnp.float32(decay))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            less = max(1, at_once // 2)
            raise UserError(
                f"fine-tuning with {at_once} images a device at once takes more memory than there is: set --microbatch {less}"
            ) from error

    def features(self, state: State, pixels: np.ndarray, positions: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Features, float32 [n, E], not of unit length, of the images at these positions of `pixels`."""
        size = -(-min(batch_size, len(positions)) // self._mesh.size) * self._mesh.size
        tower = state.params["tower"] | self._frozen
        found = [
            np.asarray(self._features(tower, _filled(pixels[positions[first : first + size]], size)))
            for first in range(0, len(positions), size)
        ]
        return np.concatenate(found)[: len(positions)]

    def _encode(self, tower: dict[str, Array], pixels: Array) -> Array:
        """Features, float32 [B, E], of uint8 [B, S, S, 3]. The text tower takes part as shapes only."""
        model = nnx.merge(self._graph, unflatten_dict(self._shapes | tower, sep="/"))
        return model.image_features((pixels.astype(jnp.float32) / 255 - self._mean) / self._std)

    def _update(
        self, state: State, frozen: dict[str, Array], batch: Sequence[Array], rate: Array, decay: Array
    ) -> tuple[State, Array]:
        """batch: pixels, labels and used [parts, rows, ...], the second axis over the devices, the first one after another."""
        split = P(None, AXES)
        on_devices = jax.shard_map(
            self._gradient, mesh=self._mesh, in_specs=(P(), P(), split, split, split), out_specs=(P(), P(), P())
        )

        def gradient(trained: Tree, seen: dict[str, Array], batch: Sequence[Array]) -> tuple[tuple[Array, Tree], Tree]:
            loss, gradients, statistics = on_devices(trained, frozen, *batch)
            return (loss, updated(seen, statistics)), gradients

        return update(sgd(rate, decay), gradient, state, batch)

    def _gradient(
        self, trained: Tree, frozen: dict[str, Array], pixels: Array, labels: Array, used: Array
    ) -> tuple[Array, Tree, dict[str, Array]]:
        """On each device: loss and gradient of the whole batch, and the statistics of its features."""
        axes = shard_axes(trained, self._mesh)

        def share(trained: Tree) -> tuple[Array, dict[str, Array]]:
            encode: Callable[[Array], Array] = lambda part: self._encode(trained["tower"] | frozen, part)  # noqa: E731
            if len(pixels) == 1:
                features = encode(pixels[0])
            else:  # forward again in the backward pass: the memory is that of one part
                width = trained["linear"]["kernel"].shape[0]
                features = lax.map(jax.checkpoint(encode), pixels).reshape(-1, width)
            row_used = used.reshape(-1)
            x, statistics = standardised(features, row_used, lambda part: lax.psum(part, AXES))
            weight = row_used / lax.psum(row_used.sum(), AXES)
            return self._loss(trained["linear"], x, labels.reshape(-1, *labels.shape[2:]), weight), statistics

        (loss, statistics), gradients = jax.value_and_grad(share, has_aux=True)(as_varying(trained, axes))
        return *sum_over_devices(loss, gradients, axes), statistics


def _begin(tower: dict[str, Array], head: Head) -> State:
    # copies, because the state is donated to each step and the model's own arrays must live on
    tower, head = jax.tree.map(jnp.copy, (tower, head))
    return begin(sgd(0.0, 0.0), {"tower": tower, "linear": head["linear"]}, head["seen"])


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _filled(array: np.ndarray, length: int) -> np.ndarray:
    """The array with zeros at its end, `length` rows."""
    missing = length - len(array)
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)]) if missing else array


def decoded(images: Sequence[ImageSource], names: Sequence[str], config: PreprocessConfig) -> np.ndarray:
    """Pixels of images, uint8 [n, S, S, 3], resized and cropped as `preprocess` does it before it normalises.

    They are in a temporary file, which goes when the array does.
    Raises UserError where an image cannot be read, or the temporary folder (TMPDIR) has too little space.
    """
    size = config.image_size
    # with this mean and deviation, normalised pixels are the 8-bit values by 255
    plain = dataclasses.replace(config, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    shape = (len(images), size, size, 3)
    pixels = _file(shape)

    def fill(position: int) -> None:
        image = load_image(images[position], names[position])
        pixels[position] = np.rint(preprocess(image, plain) * 255).astype(np.uint8)

    with ThreadPoolExecutor() as pool, progress_bar(len(images), "image (decoded)") as bar:
        for _ in pool.map(fill, range(len(images))):  # an error cancels those that have not begun
            bar.update(1)
    return pixels


def _file(shape: tuple[int, ...]) -> np.ndarray:
    with tempfile.TemporaryFile() as file:  # has no name from the beginning: nothing to clean up
        try:
            # reserved now: a full disk would kill the process when it writes into the mapping
            os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))
        except OSError as error:
            need = f"{np.prod(shape) / 1e9:.1f} GB of decoded images"
            raise UserError(
                f"{tempfile.gettempdir()}: no room for {need} ({error.strerror}); set TMPDIR to another folder"
            ) from error
        return np.memmap(file, np.uint8, "r+", shape=shape)
