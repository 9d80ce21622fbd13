"""Labels as numbers."""

from pathlib import Path

import numpy as np
import pytest

from biomedclip_jax.data.names import classes_in, multi_hot, names_in
from biomedclip_jax.data.pairs import Texts
from biomedclip_jax.data.tables import TablePairs
from biomedclip_jax.errors import UserError


def pairs(*labels: str | None) -> TablePairs:
    texts = [Texts(captions=("a",), label=label) for label in labels]
    return TablePairs(Path(), [f"{i}.png" for i in range(len(labels))], texts, [])


def test_several_labels_of_an_image() -> None:
    assert names_in("edema | pleural effusion|", "|") == ["edema", "pleural effusion"] and names_in("a|b", None) == ["a|b"]
    found = classes_in(pairs("edema|pleural effusion", None, "edema", "fracture|edema"), "|")
    assert found == ("edema", "fracture", "pleural effusion")
    rows = multi_hot(["fracture|edema", None, "pleural effusion"], found, "|")
    assert rows.dtype == bool and np.array_equal(rows, [[1, 1, 0], [0, 0, 0], [0, 0, 1]])


def test_numbers_are_in_the_order_of_numbers() -> None:
    assert classes_in(pairs("10", "2", "1")) == ("1", "2", "10")


def test_what_cannot_be_told_apart_is_said() -> None:
    with pytest.raises(UserError, match=r"the labels \['edema'\]; expected two or more"):
        classes_in(pairs("edema", "edema"))
    with pytest.raises(UserError, match="label 'foot': not among the training data's: a, b"):
        multi_hot(["foot"], ("a", "b"))
