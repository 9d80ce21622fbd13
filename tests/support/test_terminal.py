"""Noise of native code: kept back, but not with an error."""

import os

import pytest

from biomedclip_jax.errors import UserError
from biomedclip_jax.support.terminal import quiet_stderr


def noise(text: str) -> None:
    os.write(2, text.encode())


def test_only_what_is_meant_to_be_seen_is(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_stderr() as real:
        noise("noise")
        real.write("seen")
    noise(" after")
    assert capfd.readouterr().err == "seen after"


def test_an_error_brings_it_out(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="why"), quiet_stderr():
        noise("first last")
        raise ValueError("why")
    with pytest.raises(ValueError, match="why"), quiet_stderr(4):
        noise(" first last")
        raise ValueError("why")
    assert capfd.readouterr().err == "first lastlast"


def test_a_users_mistake_does_not(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError), quiet_stderr():
        noise("noise")
        raise UserError("a mistake")
    assert capfd.readouterr().err == ""
