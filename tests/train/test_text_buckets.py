"""Captions in groups by length: groups that nearly every batch fits, and the same captions on the devices, sorted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.sharding import PartitionSpec as P

from biomedclip_jax.config import Stage
from biomedclip_jax.sharding import BATCH, make_mesh
from biomedclip_jax.train.text_buckets import Bucket, Buckets, caption_lengths, plan_buckets, sort_captions, token_share

LONGEST = 256
CAPTIONS = 1_500_000


@functools.cache
def captions() -> np.ndarray:
    """Lengths as those of PMC's captions: lognormal with median 123 and mean 159, cut at 256."""
    spread = (2 * np.log(159 / 123)) ** 0.5
    lengths = np.random.default_rng(0).lognormal(np.log(123), spread, CAPTIONS)
    return np.clip(np.round(lengths), 2, LONGEST).astype(int)


def sample(population: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(population, 4_096, replace=False)


def stage(batch_size: int, microbatch: int | None = None) -> Stage:
    return Stage(batch_size, steps=1, microbatch=microbatch)


# --- the plan -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize(
    ("batch_size", "microbatch", "devices"), [(4_096, None, 8), (4_096, 512, 8), (65_536, 512, 16), (96, 48, 4)]
)
def test_the_groups_share_out_the_rows_of_a_device(batch_size: int, microbatch: int | None, devices: int, count: int) -> None:
    planned = stage(batch_size, microbatch)
    buckets = plan_buckets(sample(captions()), LONGEST, planned, devices, count)
    here, parts = batch_size // devices, planned.microbatches
    assert 1 < len(buckets) <= count
    assert sum(bucket.rows for bucket in buckets) == here
    lengths = [bucket.length for bucket in buckets]
    assert lengths == sorted(set(lengths)) and lengths[-1] == LONGEST and all(length % 8 == 0 for length in lengths)
    for bucket in buckets:
        assert bucket.rows > 0 and bucket.rows % bucket.microbatches == 0 and parts % bucket.microbatches == 0
        # a part holds no more tokens than one of the padded batch, and one part fewer would
        most = here // parts * LONGEST
        assert bucket.rows // bucket.microbatches * bucket.length <= most
        assert bucket.microbatches > 1 or parts == 1, "in a loop, so that nothing is kept of one while others are computed"
        fewer = [n for n in range(min(parts, 2), bucket.microbatches) if parts % n == 0 and bucket.rows % n == 0]
        assert all(bucket.rows // n * bucket.length > most for n in fewer)
    if here >= 64 and parts == 1:
        assert all(bucket.rows % 8 == 0 for bucket in buckets), "whole tiles"


@pytest.mark.parametrize(("count", "most"), [(2, 0.78), (4, 0.68), (8, 0.64)])
def test_the_share_of_tokens_that_is_computed(count: int, most: float) -> None:
    real = captions().mean() / LONGEST
    share = token_share(plan_buckets(sample(captions()), LONGEST, stage(4_096), 8, count), LONGEST)
    assert real < share < most
    assert token_share((), LONGEST) == 1.0
    assert token_share((Bucket(3, 64, 1), Bucket(1, 256, 1)), LONGEST) == (3 * 64 + 256) / 1024


def batches_that_do_not_fit(buckets: Buckets, population: np.ndarray, batch_size: int, devices: int, batches: int) -> int:
    """Of so many batches drawn from the population."""
    rng = np.random.default_rng(7)
    up_to = [float(np.mean(population <= bucket.length)) for bucket in buckets]
    drawn = rng.multinomial(batch_size, np.diff([0.0, *up_to, 1.0]), batches)[:, : len(buckets)].cumsum(axis=1)
    return int((drawn < np.cumsum([bucket.rows for bucket in buckets]) * devices).any(axis=1).sum())


# where nearly all captions are short, those that are not are rarely in a sample
RARE = {f"{share:.2%} longer than 128": share for share in (0.0001, 0.0005, 0.002)}


def with_few_longer(share: float) -> np.ndarray:
    lengths = np.random.default_rng(1).integers(20, 129, CAPTIONS)
    lengths[: round(share * CAPTIONS)] = LONGEST
    return lengths


@pytest.mark.parametrize("batch_size", [64, 512, 4_096, 65_536])
def test_room_for_chance(batch_size: int) -> None:
    """Of 10,000 batches, planned from 20 samples, hardly any must be padded, and from no sample many."""
    found = []
    for seed in range(20):
        buckets = plan_buckets(sample(captions(), seed), LONGEST, stage(batch_size), 8, 4)
        found.append(batches_that_do_not_fit(buckets, captions(), batch_size, 8, 500))
    assert sum(found) <= 10_000 / 300 and max(found) <= 500 / 20


@pytest.mark.parametrize("share", RARE.values(), ids=RARE.keys())
def test_room_for_captions_that_the_sample_missed(share: float) -> None:
    population = with_few_longer(share)
    for seed in range(20):
        buckets = plan_buckets(sample(population, seed), LONGEST, stage(4_096), 8, 4)
        assert token_share(buckets, LONGEST) < 0.6
        assert batches_that_do_not_fit(buckets, population, 4_096, 8, 500) <= 500 / 20


def test_where_all_captions_are_known_no_room_is_kept_for_longer_ones() -> None:
    short = np.random.default_rng(0).integers(2, 60, 300)
    assert plan_buckets(short, LONGEST, stage(64), 8, 4, complete=True) == (Bucket(8, 64, 1),)
    # from a sample of as many it is not sure
    assert plan_buckets(short, LONGEST, stage(64), 8, 4)[-1].length == LONGEST


def test_padding_stays_where_groups_are_no_gain() -> None:
    assert plan_buckets(np.full(300, LONGEST), LONGEST, stage(4_096), 8, 4) == ()
    assert plan_buckets(sample(captions()), LONGEST, stage(8), 8, 4) == (), "one caption a device"
    assert plan_buckets(sample(captions()), LONGEST, stage(4_096), 8, 1) == ()
    assert plan_buckets(np.full(300, 3), 8, stage(4_096), 8, 4) == (), "no length below the longest is a multiple of 8"


@pytest.mark.parametrize("lengths", [np.array([5]), np.array([1, 77]), np.arange(1, 78)])
def test_a_handful_of_captions_is_enough_to_plan(lengths: np.ndarray) -> None:
    """Fewer captions than devices, or than a batch has rows; lengths that are no multiples of 8."""
    for complete in (False, True):
        buckets = plan_buckets(lengths, 77, stage(128), 8, 4, complete=complete)
        assert sum(bucket.rows for bucket in buckets) in (0, 16)
        assert all(0 < bucket.length <= 77 for bucket in buckets)


# --- on the devices -------------------------------------------------------------------------------------------------


def test_length_is_up_to_the_last_token_that_is_not_padding() -> None:
    tokens = jnp.array([[5, 6, 0, 0], [5, 0, 6, 0], [5, 6, 7, 8], [0, 0, 0, 0], [5, 0, 0, 0]])
    assert caption_lengths(tokens, 0).tolist() == [2, 3, 4, 1, 1]
    assert caption_lengths(jnp.array([[9, 1, 1]]), 1).tolist() == [1]


def batch_of(lengths: np.ndarray) -> dict[str, np.ndarray]:
    tokens = np.random.default_rng(0).integers(5, 50, (len(lengths), 16)).astype(np.int32)
    tokens[np.arange(16) >= lengths[:, None]] = 0
    return {"tokens": tokens, "index": np.arange(100, 100 + len(lengths), dtype=np.uint32)}


@pytest.mark.parametrize("fsdp", [1, 4])
def test_each_device_has_every_eighth_of_the_sorted_captions(fsdp: int) -> None:
    lengths = np.random.default_rng(1).integers(1, 17, 64)
    batch = batch_of(lengths)
    buckets = (Bucket(3, 8, 1), Bucket(5, 16, 1))

    def on_device(batch: dict[str, Array]) -> tuple[dict[str, Array], Array]:
        captions, fits = sort_captions(batch, 0, buckets)
        return captions, fits[None]

    mesh = make_mesh(fsdp=fsdp)
    run = jax.jit(jax.shard_map(on_device, mesh=mesh, in_specs=BATCH, out_specs=(BATCH, BATCH)))
    found, fits = jax.tree.map(np.asarray, run(batch))
    order = np.argsort(lengths, kind="stable")
    # [device, place on it] -> place among the sorted
    assert np.array_equal(found["rows"].reshape(8, 8).T.ravel(), order)
    assert sorted(found["rows"]) == list(range(64)), "each caption is on one device"
    assert np.array_equal(found["tokens"], batch["tokens"][found["rows"]])
    assert np.array_equal(found["index"], batch["index"][found["rows"]])
    assert fits.tolist() == [bool(np.sum(lengths <= 8) >= 24)] * 8
    # so every device can cut its groups at their lengths
    assert lengths[found["rows"]].reshape(8, 8)[:, :3].max() <= 8


@pytest.mark.parametrize(("short", "fits"), [(32, True), (31, False), (33, True)])
def test_a_batch_fits_when_each_group_can_be_filled(short: int, fits: bool) -> None:
    lengths = np.random.default_rng(2).permutation(np.repeat([4, 11], [short, 64 - short]))

    def on_device(batch: dict[str, Array]) -> Array:
        return jax.lax.pmin(sort_captions(batch, 0, (Bucket(4, 4, 1), Bucket(4, 11, 1)))[1].astype(int), ("data", "fsdp"))

    run = jax.jit(jax.shard_map(on_device, mesh=make_mesh(), in_specs=BATCH, out_specs=P()))
    assert bool(run(batch_of(lengths))) == fits
    if fits:
        longer = batch_of(np.where(lengths == 11, 12, lengths))
        assert not run(longer), "longer than the last group, too, it does not fit"
