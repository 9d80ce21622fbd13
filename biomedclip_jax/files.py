"""Files and folders that appear whole or not at all: written aside, then renamed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from biomedclip_jax.errors import UserError


def _cannot_write(path: Path, error: Exception) -> UserError | None:
    # safetensors wraps the operating system's error in a type of its own
    if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
        return None
    reason = getattr(error, "strerror", None) or str(error)
    return UserError(f"{path}: cannot be written ({reason}); free space, or choose a folder that you may write to")


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then rename it into place.

    Raises UserError when the disk is full or the folder cannot be written; nothing is left behind then.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        os.replace(partial, path)
    except Exception as error:
        if partial.exists():
            partial.unlink()
        if user_error := _cannot_write(path, error):
            raise user_error from error
        raise


def write_text(path: Path, text: str) -> None:
    """A small text file, UTF-8."""
    write_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_folder(path: Path, write: Callable[[Path], object], *, replace: bool = False) -> None:
    """Let `write` fill a new folder beside `path`, then rename it into place.

    A folder that is there already and not empty is a UserError, unless `replace` is set: then it goes when, and only when,
    the new one is complete.
    """
    if not replace and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: is there already and not empty; choose another folder, or remove it first")
    partial = path.with_name(f"{path.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        if path.exists():
            shutil.rmtree(path)
        os.replace(partial, path)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        if user_error := _cannot_write(path, error):
            raise user_error from error
        raise
