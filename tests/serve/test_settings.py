"""Who may ask a server, refused at its start where nobody said so."""

from pathlib import Path

import pytest

from biomedclip_jax.cli import main
from biomedclip_jax.errors import UserError
from biomedclip_jax.serve.settings import Limits, Settings, is_loopback, read_token

TOKEN = "0123456789abcdef"


def test_which_hosts_only_this_machine_reaches() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "localhost.example", "", "hospital")))


def test_a_host_that_others_reach_needs_a_token() -> None:
    with pytest.raises(UserError, match=r"--host 0\.0\.0\.0: others can reach it.*--token-file"):
        Settings("0.0.0.0")
    assert Settings("0.0.0.0", token=TOKEN).admits(TOKEN)
    assert Settings().admits("") and Settings("::1").token is None


def test_a_token_is_compared_whole_and_never_shown() -> None:
    settings = Settings(token=TOKEN)
    assert settings.admits(TOKEN) and settings.admits_cookie(settings.cookie)
    wrong = ("", TOKEN[:-1], TOKEN + "0", settings.cookie, "\udcff")
    assert not any(map(settings.admits, wrong)) and not settings.admits_cookie(TOKEN)
    assert TOKEN not in repr(settings) and TOKEN not in settings.cookie


def test_where_a_token_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    environment = {"BIOMEDCLIP_TOKEN": TOKEN[::-1]}
    assert read_token(None, None, {}) is None
    assert read_token(None, None, environment) == TOKEN[::-1]
    assert read_token(None, file, environment) == TOKEN == read_token(TOKEN, None, environment)
    with pytest.raises(UserError, match="give one of the two"):
        read_token(TOKEN, file, {})
    with pytest.raises(UserError, match=r"--token-file .*gone: cannot be read"):
        read_token(None, tmp_path / "gone", {})


@pytest.mark.parametrize("token", ["", "short", "with a blank in it 123", "ümläute-in-here-1234"])
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused(token: str) -> None:
    with pytest.raises(UserError, match="16 characters or more") as error:
        read_token(token, None, {})
    assert not token or f"'{token}'" not in str(error.value)


def test_limits_are_above_0_and_fit_each_other() -> None:
    with pytest.raises(UserError, match="images = 0"):
        Limits(images=0)
    with pytest.raises(UserError, match="may not be larger"):
        Limits(body_bytes=10, bodies_bytes=9)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "others can reach it"),
        (["--port", "99999"], "expected a number from 0 to 65535"),
        (["--token", "short"], "16 characters"),
        (["--token-file", "/nowhere/token"], "cannot be read"),
        (["--port", "0"], "no_such_model"),
    ],
)
def test_a_server_that_cannot_start_says_so_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BIOMEDCLIP_TOKEN", raising=False)
    assert main(["serve", "no_such_model", *words]) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


def test_an_address_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "no_such_model", "--port", str(port)]) == 2
    assert f"--port {port}: cannot be listened at" in capsys.readouterr().err
