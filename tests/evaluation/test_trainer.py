"""The small trainer: which images a batch has, PyTorch's SGD, and statistics that are measured on the way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biomedclip_jax.evaluation._trainer import begin, epoch, sgd, shuffled


@pytest.mark.parametrize(
    ("count", "size", "fewest", "steps", "left"),
    [(10, 4, 1, 3, 0), (10, 4, 4, 2, 2), (9, 4, 2, 2, 1), (10, 4, 2, 3, 0), (8, 4, 4, 2, 0), (1, 1, 2, 0, 1)],
)
def test_batches(count: int, size: int, fewest: int, steps: int, left: int) -> None:
    """Each image once an epoch, in the order given, but for those of a last batch that is too small."""
    orders = [np.random.default_rng(seed).permutation(count) for seed in range(3)]
    found = shuffled(orders, size, fewest)
    assert found.shape == (3, steps, size) and found.dtype == np.int32
    for rows, order in zip(found.reshape(3, -1), orders, strict=True):
        assert rows[rows >= 0].tolist() == order[: count - left].tolist()
        assert (rows[count - left :] == -1).all(), "what fills up a batch is at the end"


def test_an_epoch_is_torchs_sgd_and_keeps_statistics() -> None:
    import torch

    rng = np.random.default_rng(0)
    start, rows = rng.normal(size=4).astype(np.float32), rng.normal(size=(7, 5, 4)).astype(np.float32)

    def loss(w, statistics, x):
        return jnp.square(x @ w - 1).mean(), {"rows": statistics["rows"] + len(x)}

    optimizer = sgd(0.05, 0.1)
    state = begin(optimizer, jnp.asarray(start), {"rows": jnp.int32(0)})
    run = jax.jit(lambda state, rows: epoch(optimizer, jax.value_and_grad(loss, has_aux=True), state, rows))
    state, losses = run(state, rows)

    theirs = torch.tensor(start, requires_grad=True)
    peer = torch.optim.SGD([theirs], lr=0.05, momentum=0.9, weight_decay=0.1)
    for batch, ours in zip(rows, losses, strict=True):
        expected = (torch.tensor(batch) @ theirs - 1).square().mean()
        peer.zero_grad()
        expected.backward()
        peer.step()
        assert float(ours) == pytest.approx(expected.item(), abs=1e-5)
    np.testing.assert_allclose(state.params, theirs.detach().numpy(), atol=1e-5)
    assert int(state.statistics["rows"]) == 35
