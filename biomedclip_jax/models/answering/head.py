"""What every module that answers questions can do, whatever it is made of."""

from typing import TYPE_CHECKING, Protocol

from jax import Array
from jaxtyping import Bool, Float

from biomedclip_jax.models._shapes import Images, Keys, Tokens

if TYPE_CHECKING:
    from biomedclip_jax.models.clip import CLIP

Labels = Bool[Array, "B C"]  # which answers are right, in the order of the config's `answers`
Scores = Float[Array, "B C"]
Terms = Float[Array, "B K"]  # the K parts of a loss, of each example
Counted = Bool[Array, "B K"]  # the examples that each part is of


class AnsweringHead(Protocol):
    """A module with parameters of its own that uses the towers of the model it is a part of.

    The loss of a batch is the sum over its K parts of

        sum(terms[:, k] where counted[:, k]) / number of examples of the whole batch where counted[:, k]

    so that it is the same however the batch is divided over devices and microbatches.
    """

    def scores(self, clip: "CLIP", images: Images, tokens: Tokens, keys: Keys | None = None) -> Scores:
        """A logit for each answer, float32; -inf for those that a question of its kind cannot have. keys: turn dropout on."""
        ...

    def terms(self, clip: "CLIP", images: Images, tokens: Tokens, labels: Labels, keys: Keys | None) -> Terms:
        """The parts of the loss, float32."""
        ...

    def counted(self, labels: Labels) -> Counted:
        """Which examples each part of the loss is of; a function of the labels alone."""
        ...
