"""Types of the arrays that cross the towers; the letters are those of the table in `__init__.py`."""

import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Key

Images = Float[Array | np.ndarray, "B S S 3"]  # normalised
Tokens = Int[Array | np.ndarray, "B N"]  # token ids, padded
Words = Float[Array | np.ndarray, "B N D"]  # word embeddings, learned ones among them
Keys = Key[Array, " B"]  # one random key an example; without them nothing is random
Hidden = Float[Array, "B N D"]
Features = Float[Array, "B D"]  # of a whole sequence
Embeddings = Float[Array, "B E"]
Mask = Bool[Array | np.ndarray, "..."]  # broadcastable to [B, H, N, N]; True where a query may look at a key
Index = Int[Array, ""]  # of a block
