"""A Python file that defines `config`: how experiments are written down in `configs/`."""

import runpy
import sys
from pathlib import Path

from biomedclip_jax.config import TrainConfig
from biomedclip_jax.errors import UserError


def load_config(path: Path) -> TrainConfig:
    """Run the file and take its `config`. It may import its neighbours. UserError for a missing or broken file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a Python file that defines `config`, see configs/")
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        config = runpy.run_path(str(path)).get("config")
    except UserError:
        raise
    except Exception as error:  # anything may go wrong in a file that somebody writes
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    if not isinstance(config, TrainConfig):
        raise UserError(f"{path}: expected it to define `config`, a biomedclip_jax.config.TrainConfig")
    return config
