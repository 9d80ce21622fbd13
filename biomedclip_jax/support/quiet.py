"""What native code and other processes write to our stderr, kept back."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import TextIO

from biomedclip_jax.errors import UserError


@contextlib.contextmanager
def quiet_stderr(most: int | None = None) -> Iterator[TextIO]:
    """Keeps back what is written to stderr; an exception other than UserError brings it out, or its last `most` bytes.

    Gives the real stderr, for what is to be seen all the same.
    """
    sys.stderr.flush()
    with os.fdopen(os.dup(2), "w") as real, tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield real
        except UserError:
            raise
        except BaseException:
            kept.seek(0 if most is None else max(0, kept.tell() - most))
            real.write(kept.read().decode(errors="replace"))
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real.fileno(), 2)
