"""The `biomedclip` command."""

from biomedclip_jax.cli.main import main

__all__ = ["main"]
