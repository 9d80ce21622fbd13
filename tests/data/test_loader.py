"""What a batch holds is a function of (seed, place in the run): the ground under resuming and under several processes."""

import dataclasses
import pickle
import string
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from helpers.reference import write_vocabulary
from PIL import Image
from pyarrow import parquet

from biomedclip_jax.config import AugmentConfig, DataConfig, PreprocessConfig
from biomedclip_jax.data.convert import convert
from biomedclip_jax.data.images.load import load_image
from biomedclip_jax.data.images.preprocess import preprocess_train
from biomedclip_jax.data.loader import Batch, TrainLoader, record_order
from biomedclip_jax.data.pairs import Mixture, Reject, Subset, Texts
from biomedclip_jax.data.sources import open_pairs
from biomedclip_jax.data.tables import TablePairs
from biomedclip_jax.data.text import Tokenizer
from biomedclip_jax.errors import UserError

RECORDS = 10
BATCH = 4
Batches = list[Batch]


@pytest.fixture
def loader(tmp_path: Path) -> TrainLoader:
    """Ten images of noise; the caption of each is a letter of its own, which makes records known again in a batch."""
    write_vocabulary(tmp_path)
    rng = np.random.default_rng(0)
    images = [tmp_path / f"{i}.png" for i in range(RECORDS)]
    for path in images:
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(path)
    rejects: list[Reject] = []
    texts = [Texts(captions=(letter,)) for letter in string.ascii_lowercase[:RECORDS]]
    return TrainLoader(
        TablePairs(tmp_path, [path.name for path in images], texts, rejects),
        Tokenizer(tmp_path, 8, 0, 200),
        PreprocessConfig(image_size=16),
        DataConfig(train="", crop_scale=(0.5, 1.0), workers=0),
        seed=3,
        reject=rejects.append,
    )


def records(batches: Batches) -> list[int]:
    """Which records are in the batches: the first letter of the vocabulary has id 5."""
    return [int(token) - 5 for batch in batches for token in batch.tokens[:, 1]]


def same(a: Batches, b: Batches) -> bool:
    return len(a) == len(b) and all(same_arrays(x.arrays(), y.arrays()) for x, y in zip(a, b, strict=True))


def same_arrays(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def joined(parts: Sequence[Batch]) -> Batch:
    """The rows of several batches, one after the other."""
    arrays = [part.arrays() for part in parts]
    return Batch(**{name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]})


def test_shapes_and_contents(loader: TrainLoader) -> None:
    (batch,) = loader.batches(20, BATCH, 1)
    assert {name: (array.shape, array.dtype) for name, array in batch.arrays().items()} == {
        "images": ((BATCH, 16, 16, 3), np.uint8),
        "tokens": ((BATCH, 8), np.int32),
        "index": ((BATCH,), np.uint32),
    }
    assert list(batch.index) == [20, 21, 22, 23]
    for row, record in enumerate(records([batch])):  # image and caption of a row are of the same pair
        generator = np.random.default_rng((loader.seed, 20 + row))
        expected = preprocess_train(load_image(loader.pairs[record].image), loader.preprocess, generator, (0.5, 1.0))
        assert np.array_equal(batch.images[row], expected)


@pytest.mark.parametrize("done", [1, 3])
def test_a_resumed_run_sees_what_an_unbroken_one_sees(loader: TrainLoader, done: int) -> None:
    """Bit for bit, the random crops too, and across the end of an epoch (10 records, batches of 4)."""
    whole = list(loader.batches(0, BATCH, 6))
    assert same(list(loader.batches(done * BATCH, BATCH, 6 - done)), whole[done:])
    assert not same(whole[:1], whole[1:2])


def test_batch_size_does_not_change_the_order(loader: TrainLoader) -> None:
    """A run may change its batch size from stage to stage: places count samples, not batches."""
    large, small = list(loader.batches(0, 12, 1)), list(loader.batches(0, 3, 4))
    assert same(large, [joined(small)])


def test_every_record_once_an_epoch_in_a_new_order(loader: TrainLoader) -> None:
    seen = records(list(loader.batches(0, 5, 8)))
    epochs = [seen[i : i + RECORDS] for i in range(0, len(seen), RECORDS)]
    assert all(sorted(epoch) == list(range(RECORDS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4 and epochs[0] != list(range(RECORDS))


def test_a_record_is_cropped_anew_in_each_epoch(loader: TrainLoader) -> None:
    batches = list(loader.batches(0, RECORDS, 2))
    first, second = (batch.images.astype(int)[np.argsort(records([batch]))] for batch in batches)
    assert (np.abs(first - second).max(axis=(1, 2, 3)) > 6).sum() > RECORDS / 2


def test_the_parts_of_two_processes_make_one_batch(loader: TrainLoader) -> None:
    whole = list(loader.batches(8, BATCH, 3))
    parts = [list(loader.batches(8, BATCH, 3, process, 2)) for process in range(2)]
    assert same([joined(both) for both in zip(*parts, strict=True)], whole)


def test_another_seed_is_another_order(loader: TrainLoader) -> None:
    other = dataclasses.replace(loader, seed=4)
    assert records(list(other.batches(0, 5, 4))) != records(list(loader.batches(0, 5, 4)))


def test_a_broken_image_is_replaced_and_reported(loader: TrainLoader) -> None:
    """By a random record, at the same position, so that no other position changes."""
    before = list(loader.batches(0, 5, 2))
    Path(loader.pairs.name(4)).write_bytes(b"broken since the run began")
    after = list(loader.batches(0, 5, 2))
    assert [a for a, b in zip(records(after), records(before), strict=True) if b != 4] == [b for b in records(before) if b != 4]
    assert 4 not in records(after) and records(list(loader.batches(0, 5, 2))) == records(after)
    reject = loader.pairs.rejects[0]
    assert reject.row == "5" and reject.image == loader.pairs.name(4) and "4.png" in reject.reason
    kept = np.array(records(before)) != 4
    images = [np.concatenate([batch.images for batch in batches]) for batches in (before, after)]
    assert np.array_equal(images[0][kept], images[1][kept])


def test_a_block_of_broken_images_is_not_one_image_many_times(loader: TrainLoader) -> None:
    for record in range(3, 7):
        Path(loader.pairs.name(record)).write_bytes(b"an interrupted copy")
    found = Counter(records(list(loader.batches(0, 10, 10))))
    assert found.keys() == {0, 1, 2, 7, 8, 9} and max(found.values()) < 30, "each is drawn about 17 times"


def test_a_stand_in_is_of_the_same_source(loader: TrainLoader) -> None:
    """The share of a source in a mixture stays, and a source of which nothing can be read is said."""
    for record in range(4):
        Path(loader.pairs.name(record)).write_bytes(b"broken")
    first, second = Subset(loader.pairs, list(range(5)), []), Subset(loader.pairs, list(range(5, 10)), [])
    mixed = dataclasses.replace(loader, pairs=Mixture([first, second], [0.5, 0.5]))
    found = Counter(record < 5 for record in records(list(mixed.batches(0, 10, 4))))
    assert found == {True: 20, False: 20}
    Path(loader.pairs.name(4)).write_bytes(b"broken")
    with pytest.raises(UserError, match=r"none of the 5 images of the training data can be read, such as .*0\.png"):
        list(mixed.batches(0, 10, 1))


def test_too_many_broken_images_stop_the_run(loader: TrainLoader) -> None:
    for record in range(7):
        Path(loader.pairs.name(record)).write_bytes(b"broken")
    with pytest.raises(UserError, match=r"images that were drawn cannot be read, more than 50%; the last: .*\.png, "):
        list(loader.batches(0, 20, 30))


def test_when_no_image_can_be_read(loader: TrainLoader) -> None:
    for record in range(RECORDS):
        Path(loader.pairs.name(record)).unlink()
    with pytest.raises(UserError, match="none of the 10 images"):
        next(iter(loader.batches(0, BATCH, 1)))


# --- workers, hosts, texts, mixtures --------------------------------------------------------------------------------


def with_config(loader: TrainLoader, **changes: object) -> TrainLoader:
    return dataclasses.replace(loader, config=dataclasses.replace(loader.config, **changes))


def test_worker_processes_change_nothing(loader: TrainLoader) -> None:
    """Nor does what they meet get lost: a broken image is listed here, by whom it was never read."""
    Path(loader.pairs.name(4)).write_bytes(b"broken")
    rejects: list[Reject] = []
    other = dataclasses.replace(with_config(loader, workers=2), reject=rejects.append)
    assert same(list(other.batches(8, 12, 4)), list(loader.batches(8, 12, 4)))
    assert {reject.row for reject in rejects} == {"5"} and "4.png" in rejects[0].reason


def test_an_error_in_a_worker_process_is_ours_to_see(loader: TrainLoader) -> None:
    for record in range(RECORDS):
        Path(loader.pairs.name(record)).unlink()
    with pytest.raises(UserError, match="none of the 10 images"):
        list(with_config(loader, workers=1).batches(0, BATCH, 4))


def test_a_worker_that_is_killed_is_one_line(loader: TrainLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    batches = with_config(loader, workers=1).batches(0, BATCH, 10_000)
    next(batches)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(UserError, match=r"process of the data loader has ended.*data\.workers"):
        list(batches)


ENDLESS = """
import multiprocessing, pickle, sys
if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        loader = pickle.load(file)
    batches = loader.batches(0, 4, 1_000_000)
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    input()
"""


def test_pictures_in_parquet_give_the_same_batches_in_workers(loader: TrainLoader, tmp_path: Path) -> None:
    """A worker process opens the files itself; a picture that is broken is a reject with its row."""
    convert(loader.pairs, tmp_path / "parquet", "huggingface")
    pairs = open_pairs(f"{tmp_path}/parquet:train")
    rejects: list[Reject] = []
    inside = dataclasses.replace(with_config(loader, workers=2), pairs=pairs, reject=rejects.append)
    assert same(list(inside.batches(0, BATCH, 5)), list(loader.batches(0, BATCH, 5))) and rejects == []
    file = tmp_path / "parquet" / "data" / "train-00000-of-00001.parquet"
    table = parquet.read_table(file)
    rows = table.to_pylist()
    rows[4]["image"]["bytes"] = rows[4]["image"]["bytes"][:50]
    parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), file)
    broken = dataclasses.replace(inside, pairs=open_pairs(f"{tmp_path}/parquet:train"))
    list(broken.batches(0, BATCH, 5))
    assert rejects and {each.row for each in rejects} == {"5"} and "row 5 (00000004.png)" in rejects[0].reason


def test_workers_end_when_their_run_is_killed(loader: TrainLoader, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(ENDLESS)
    (tmp_path / "loader").write_bytes(pickle.dumps(dataclasses.replace(with_config(loader, workers=2), reject=print)))
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "loader")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        workers = [int(pid) for pid in run.stdout.readline().split()]
        assert len(workers) == 2 and all(map(is_alive, workers))
        run.kill()
        until = time.monotonic() + 20
        while any(map(is_alive, workers)) and time.monotonic() < until:
            time.sleep(0.1)
        assert not any(map(is_alive, workers))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("processes", [2, 4])
def test_hosts_share_the_same_batches_at_any_batch_size(loader: TrainLoader, processes: int) -> None:
    """Chunks of work do not line up with the rows of a host: 20 rows of 4 hosts, 5 each."""
    whole = list(loader.batches(3, 20, 5))
    parts = [list(loader.batches(3, 20, 5, process, processes)) for process in range(processes)]
    assert same([joined(batch) for batch in zip(*parts, strict=True)], whole)


def test_one_of_several_captions_is_drawn_by_place(loader: TrainLoader) -> None:
    texts = [Texts(captions=("a", "b", "c")) for _ in range(RECORDS)]
    several = dataclasses.replace(loader, pairs=TablePairs(Path(), [loader.pairs.name(i) for i in range(RECORDS)], texts, []))
    batches = list(several.batches(0, 60, 5))
    drawn = np.array(records(batches))
    assert [int((drawn == letter).sum()) for letter in range(3)] == pytest.approx([100, 100, 100], abs=25)
    assert same(list(several.batches(120, 60, 3)), batches[2:]), "the same after resuming"
    assert all(np.array_equal(a.images, b.images) for a, b in zip(batches, loader.batches(0, 60, 5), strict=True)), (
        "drawing a text does not change the crop"
    )
    assert several.sample_texts(100)[1] is False, "one caption of three is not all there is"
    assert loader.sample_texts(100) == (texts_of(loader), True) and loader.sample_texts(9)[1] is False


def texts_of(loader: TrainLoader) -> list[str]:
    order = np.random.default_rng(loader.seed).permutation(RECORDS)
    return [loader.pairs.texts(int(record)).captions[0] for record in order]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 75), (1.0, 300)])
def test_paragraphs_stand_for_captions(loader: TrainLoader, share: float, expected: int) -> None:
    """In that share of the cases; where there is none the caption stays."""
    texts = [Texts(captions=("a",), references=("b", "c") if record else ()) for record in range(RECORDS)]
    pairs = TablePairs(Path(), [loader.pairs.name(i) for i in range(RECORDS)], texts, [])
    other = dataclasses.replace(with_config(loader, reference_share=share), pairs=pairs)
    drawn = np.array(records(list(other.batches(0, 50, 6))))
    assert (drawn > 0).sum() == pytest.approx(0.9 * expected, abs=0.2 * expected if share < 1 else 0)
    assert not share or {1, 2} <= set(drawn.tolist())


def test_a_mixture_keeps_its_weights_and_each_part_its_epochs(loader: TrainLoader) -> None:
    """Three of four places are of the first source, though it has three records and the other seven."""
    names = [loader.pairs.name(i) for i in range(RECORDS)]
    texts = [Texts(captions=(letter,)) for letter in string.ascii_lowercase[:RECORDS]]
    parts = [TablePairs(Path(), names[:3], texts[:3], []), TablePairs(Path(), names[3:], texts[3:], [])]
    mixed = dataclasses.replace(loader, pairs=Mixture(parts, (3.0, 1.0)))
    assert len(mixed.pairs) == RECORDS and mixed.pairs[3].name == names[3]
    batches = list(mixed.batches(0, 14, 8))
    seen = records(batches)
    first, second = [r for r in seen if r < 3], [r for r in seen if r >= 3]
    assert len(first) == 84 and len(second) == 28
    assert all(sorted(first[i : i + 3]) == [0, 1, 2] for i in range(0, 84, 3))
    assert all(sorted(second[i : i + 7]) == list(range(3, 10)) for i in range(0, 28, 7))
    assert same(list(mixed.batches(42, 14, 5)), batches[3:])


def test_equal_sources_of_a_mixture_do_not_go_in_step(loader: TrainLoader) -> None:
    order = record_order(Mixture([loader.pairs, loader.pairs], (1.0, 1.0)), 0)
    drawn = np.array([int(order[place]) for place in range(40)])
    first, second = drawn[drawn < RECORDS], drawn[drawn >= RECORDS] - RECORDS
    assert len(first) == len(second) == 20 and not np.array_equal(first, second)


def test_extras_are_keyed_by_place_and_leave_the_crop(loader: TrainLoader) -> None:
    flipping = with_config(loader, augment=AugmentConfig(flip_prob=0.5))
    plain, flipped = list(loader.batches(0, 20, 2)), list(flipping.batches(0, 20, 2))
    same_way = turned = 0
    for a, b in zip(plain, flipped, strict=True):
        for x, y in zip(a.images, b.images, strict=True):
            same_way += np.array_equal(x, y)
            turned += np.array_equal(x[:, ::-1], y)
    assert same_way + turned == 40 and 10 <= turned <= 30
    assert same(list(flipping.batches(20, 20, 1)), flipped[1:])
