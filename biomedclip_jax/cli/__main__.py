"""`python -m biomedclip_jax.cli`, the same as `biomedclip`."""

import sys

from biomedclip_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
