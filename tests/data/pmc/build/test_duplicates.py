"""Duplicates by digest and by look, against the obvious quadratic way."""

import numpy as np

from biomedclip_jax.data.pmc.build._pictures import DISTANCE, find_duplicates


def hashes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return (generator.integers(0, 256, (count, 32), dtype=np.uint8) for _ in range(2))  # type: ignore[return-value]


def flip(look: np.ndarray, bits: int, generator: np.random.Generator) -> np.ndarray:
    flat = np.unpackbits(look)
    flat[generator.permutation(256)[:bits]] ^= 1
    return np.packbits(flat)


def test_the_first_in_order_stays() -> None:
    digests, looks = hashes(6)
    digests[4] = digests[2] = digests[0]
    looks[5] = flip(looks[1], DISTANCE, np.random.default_rng(1))
    found = find_duplicates(digests, looks, np.array([5, 4, 3, 2, 1, 0]))
    assert found.of.tolist() == [4, 5, 4, -1, -1, -1]
    assert found.exact.tolist() == [True, False, True, False, False, False]
    only_exact = find_duplicates(digests, looks, np.arange(6), similar=False)
    assert only_exact.of.tolist() == [-1, -1, 0, -1, 0, -1]


def test_one_bit_more_is_another_picture() -> None:
    digests, looks = hashes(2)
    looks[1] = flip(looks[0], DISTANCE + 1, np.random.default_rng(2))
    assert find_duplicates(digests, looks, np.arange(2)).of.tolist() == [-1, -1]


def test_copies_of_a_copy_name_the_one_that_stays() -> None:
    """2 is 1's file again, and 1 looks like 0."""
    digests, looks = hashes(3)
    looks[1] = looks[2] = flip(looks[0], 3, np.random.default_rng(3))
    digests[2] = digests[1]
    assert find_duplicates(digests, looks, np.arange(3)).of.tolist() == [-1, 0, 0]


def test_a_chain_does_not_swallow_what_differs() -> None:
    """1 is near 0 and 2 is near 1, but 2 is not near 0: 2 stays."""
    digests, looks = hashes(3)
    bits = np.random.default_rng(4).permutation(256)
    for picture, count in ((1, DISTANCE), (2, 2 * DISTANCE)):
        flat = np.unpackbits(looks[0])
        flat[bits[:count]] ^= 1
        looks[picture] = np.packbits(flat)
    assert find_duplicates(digests, looks, np.arange(3)).of.tolist() == [-1, 0, -1]


def test_equal_to_comparing_all_with_all() -> None:
    generator = np.random.default_rng(5)
    digests, looks = hashes(300, seed=6)
    for _ in range(200):
        i, j = generator.integers(0, 300, 2)
        looks[j] = flip(looks[i], int(generator.integers(0, 2 * DISTANCE)), generator)
    order = generator.permutation(300)
    expected = np.full(300, -1)
    for position, j in enumerate(order):
        for i in order[:position]:
            if expected[i] == -1 and np.bitwise_count(looks[i] ^ looks[j]).sum() <= DISTANCE:
                expected[j] = i
                break
    found = find_duplicates(digests, looks, order).of
    assert (expected >= 0).sum() > 30
    assert found.tolist() == expected.tolist()


def test_nothing_at_all() -> None:
    empty = np.empty((0, 32), np.uint8)
    assert find_duplicates(empty, empty, np.empty(0, int)).of.tolist() == []
