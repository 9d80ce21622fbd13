"""What a terminal shows: noise of native code only with an error, what is odd about files not without end."""

import os

import pytest

from biomedclip_jax.errors import UserError
from biomedclip_jax.support import terminal
from biomedclip_jax.support.terminal import quiet_stderr, say_some


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


def test_what_is_odd_is_said_once_and_not_a_thousand_times(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_said", set())
    for number in [*range(100), 0]:
        say_some(f"{number}.png: odd")
        say_some("0.png: odd")
    said = capsys.readouterr().err.splitlines()
    assert said[:10] == [f"{number}.png: odd" for number in range(10)] and len(said) == 11
