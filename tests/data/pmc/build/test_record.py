"""Articles to splits and shards."""

import pytest

from biomedclip_jax.data.pmc.build.record import PMC_15M, ShardId, shard_counts, shard_of

ARTICLES = [f"PMC{number}" for number in range(1_000_000, 1_020_000)]


def test_the_proportions_are_those_of_the_paper() -> None:
    """13.9 M, 13.6 k and 726 k pairs, within three standard deviations for 20,000 articles."""
    shards = shard_counts(PMC_15M, 1)
    found = {split: 0 for split in PMC_15M}
    for article in ARTICLES:
        found[shard_of(article, PMC_15M, shards).split] += 1
    total = sum(PMC_15M.values())
    for split, share in PMC_15M.items():
        expected = len(ARTICLES) * share / total
        assert abs(found[split] - expected) < 3 * expected**0.5, split


def test_the_split_does_not_depend_on_the_number_of_shards() -> None:
    few, many = shard_counts(PMC_15M, 2), shard_counts(PMC_15M, 1_000)
    assert [shard_of(a, PMC_15M, few).split for a in ARTICLES] == [shard_of(a, PMC_15M, many).split for a in ARTICLES]


def test_shards_of_all_splits_are_about_equally_long() -> None:
    assert shard_counts(PMC_15M, 1_000) == {"train": 1_000, "validation": 1, "test": 52}
    counts = {"train": 16, "validation": 1, "test": 1}
    lengths: dict[ShardId, int] = {}
    for article in ARTICLES:
        shard = shard_of(article, PMC_15M, counts)
        lengths[shard] = lengths.get(shard, 0) + 1
    train = [length for shard, length in lengths.items() if shard.split == "train"]
    assert len(train) == 16
    assert min(train) > 0.85 * max(train)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_split_without_a_share_gets_nothing(share: float) -> None:
    proportions = {"train": 1 - share, "test": share}
    found = {shard_of(a, proportions, {"train": 3, "test": 3}).split for a in ARTICLES[:500]}
    assert found == ({"test"} if share else {"train"})
