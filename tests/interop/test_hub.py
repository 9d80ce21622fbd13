"""Fetching from a hub that runs on this machine: what is asked for, what is not, and what happens when nobody answers.

In processes of their own, because the hub's client reads its settings when it is imported.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from helpers.reference import open_clip_model

from biomedclip_jax import errors
from biomedclip_jax.cli.main import main
from biomedclip_jax.interop import model_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Enough of the Hugging Face hub for `snapshot_download`. `folder` holds org/name/...; `sent` lists the files sent."""

    folder: Path
    sent: list[str] = field(default_factory=list)
    server: ThreadingHTTPServer = field(init=False)

    def __post_init__(self) -> None:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def do_GET(self) -> None:
                parts = urlsplit(self.path).path.strip("/").split("/")
                api = parts[:2] == ["api", "models"]
                org, name, verb, commit, *rest = (parts[2:] if api else parts) + [""] * 4
                repository = hub.folder / org / name
                file = repository / "/".join(part for part in rest if part)
                if not repository.is_dir():
                    self.answer(b'{"error": "Repository not found"}', 404, X_Error_Code="RepoNotFound")
                elif commit not in ("main", COMMIT):
                    self.answer(b'{"error": "Invalid rev id"}', 404, X_Error_Code="RevisionNotFound")
                elif api and verb == "revision":
                    self.answer(json.dumps({"id": f"{org}/{name}", "sha": COMMIT, "siblings": []}).encode())
                elif api and verb == "tree":
                    paths = [path for path in repository.rglob("*") if path.is_file()]
                    entries = [{"type": "file", "path": str(p.relative_to(repository)), "oid": hub.etag(p)} for p in paths]
                    sized = [entry | {"size": p.stat().st_size} for entry, p in zip(entries, paths, strict=True)]
                    self.answer(json.dumps(sized).encode(), Content_Type="application/json")
                elif verb == "resolve" and file.is_file():
                    if self.command == "GET":
                        hub.sent.append(str(file.relative_to(hub.folder)))
                    self.answer(file.read_bytes(), ETag=f'"{hub.etag(file)}"', X_Repo_Commit=COMMIT)
                else:
                    self.answer(b'{"error": "Entry not found"}', 404, X_Error_Code="EntryNotFound")

            do_HEAD = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def etag(file: Path) -> str:
        return hashlib.sha1(file.read_bytes()).hexdigest()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """Repositories: org/safe, with the same weights in every form; org/pickle, with PyTorch's alone; org/other, see below."""
    from safetensors.torch import load_file
    from torch import save

    vision = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
    folder = tmp_path / "hub"
    open_clip_model(folder / "org" / "safe", vision, {"context_length": 16}, bert={"num_hidden_layers": 1})
    safe = folder / "org" / "safe"
    (safe / "README.md").write_text("not needed")
    (safe / "example.ipynb").write_text("{}")
    (safe / "checkpoints").mkdir()
    (safe / "checkpoints" / "open_clip_model.safetensors").write_text("not needed")
    weights = load_file(safe / "open_clip_model.safetensors")
    save(weights, safe / "open_clip_pytorch_model.bin")
    shutil.copytree(safe, folder / "org" / "pickle")
    (folder / "org" / "pickle" / "open_clip_model.safetensors").unlink()
    # many open_clip repositories also hold the model as transformers names it
    (safe / "model.safetensors").write_bytes(b"of no use to us")
    shutil.copytree(folder / "org" / "pickle", folder / "org" / "other")
    (folder / "org" / "other" / "model.safetensors").write_bytes(b"of no use to us")
    found = Hub(folder)
    yield found
    found.stop()


LOAD = """
import json, sys
from biomedclip_jax.errors import UserError
from biomedclip_jax.pretrained import load
for address in sys.argv[1:]:
    try:
        print(json.dumps([str(load(address).tokenizer), len(load(address).report.used)]))
    except UserError as error:
        print(json.dumps(str(error)))
"""


def load(hub: Hub, home: Path, *addresses: str, offline: bool = False) -> list[Any]:
    """For each address [folder, tensors read], or the message of its UserError; fails on any other error."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server.server_port}", "HF_HOME": str(home)}
    environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    command = [sys.executable, "-c", LOAD, *addresses]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_fetch_then_work_offline(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    addresses = [f"hf-hub:org/{name}" for name in ("safe", "pickle", "other")]
    found = load(hub, home, *addresses, "hf-hub:org/safe@main", "hf-hub:org/none", "hf-hub:org/safe@v9", "hf-hub:safe")
    described = {"open_clip_config.json", "config.json", "vocab.txt", "tokenizer_config.json"}
    wanted = {f"org/safe/{file}" for file in described | {"open_clip_model.safetensors"}}
    for name in ("pickle", "other"):
        wanted |= {f"org/{name}/{file}" for file in described | {"open_clip_pytorch_model.bin"}}
    assert sorted(hub.sent) == sorted(wanted), "each file once, and no other"
    used = found[0][1]
    assert all(Path(folder).is_relative_to(home) and n == used > 30 for folder, n in found[:4])
    for address, message in zip(("hf-hub:org/none", "hf-hub:org/safe@v9", "hf-hub:safe"), found[4:], strict=True):
        assert message.startswith(f"{address}: ") and "\n" not in message

    hub.stop()
    assert load(hub, home, *addresses, offline=True) == found[:3]
    assert load(hub, home, addresses[0]) == found[:1], "a network that is down is no reason to fail, either"


@pytest.mark.parametrize("offline", [False, True])
def test_nobody_answers(hub: Hub, tmp_path: Path, offline: bool) -> None:
    hub.stop()
    (message,) = load(hub, tmp_path / "home", "hf-hub:org/safe", offline=offline)
    assert message.startswith("hf-hub:org/safe: cannot be fetched (") and "\n" not in message
    assert "check name and network, or give a local folder" in message


def test_errors_name_the_address_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not only the folder that it was fetched into."""
    (tmp_path / "open_clip_config.json").write_text("{}")
    monkeypatch.setattr(model_files, "fetch", lambda address, weights: tmp_path)
    monkeypatch.setattr(model_files, "fetched", lambda address: tmp_path)
    monkeypatch.setattr(errors, "_addresses", {})
    for address in ("hf-hub:org/name", "s3://bucket/model/"):
        assert main(["convert", address, str(tmp_path / "out")]) == 2
        found = capsys.readouterr().err.strip()
        assert found.startswith(f"biomedclip convert: {address.rstrip('/')}: no weights here") and found.count("\n") == 0
        assert found.endswith(f" (its copy here is {tmp_path})")
