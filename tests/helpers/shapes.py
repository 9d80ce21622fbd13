"""The type checker that reads the shapes in signatures, `Float[Array, "B N D"]`, at each call; see `conftest.py`."""

from beartype import BeartypeConf, beartype

# an int is a float, as for every other type checker
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
