"""Who may import whom, read from the source, and what starting up must not import, seen in a process."""

import ast
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

import biomedclip_jax

PACKAGE = "biomedclip_jax"
ROOT = Path(biomedclip_jax.__file__).parent

# The rooms, and the rooms that each may import from. A new file at the top, or a new folder, needs a row here.
_FOUNDATION = {"errors", "files", "support"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors"},
    "support": {"errors", "files"},
    "config": _FOUNDATION,
    "sharding": _FOUNDATION,
    "models": _FOUNDATION | {"config"},
    "equal_captions": _FOUNDATION,
    "losses": _FOUNDATION | {"config", "models", "sharding", "equal_captions"},
    "data": _FOUNDATION | {"config"},
    "interop": _FOUNDATION | {"config", "models"},
    "prompts": _FOUNDATION | {"config", "models", "data", "interop"},
    "answering": _FOUNDATION | {"data"},
    "pretrained": _FOUNDATION | {"config", "sharding", "models", "data", "interop", "prompts", "answering"},
    "evaluation": _FOUNDATION | {"config", "sharding", "models", "data", "interop", "prompts", "pretrained"},
    "train": _FOUNDATION | {"config", "sharding", "models", "losses", "data", "interop", "prompts", "evaluation", "pretrained"},
}
MAY_IMPORT["train"] |= {"equal_captions"}
MAY_IMPORT["search"] = _FOUNDATION | {"config", "data", "pretrained", "evaluation"}
MAY_IMPORT["deploy"] = _FOUNDATION | {"config", "models", "data", "interop"}
MAY_IMPORT["heatmaps"] = _FOUNDATION | {"config", "models", "data", "pretrained"}
MAY_IMPORT["bench"] = _FOUNDATION | {"config", "sharding", "models", "losses", "data", "interop", "train", "pretrained"}
MAY_IMPORT["planning"] = _FOUNDATION | {"config", "models", "sharding", "prompts", "train"}
MAY_IMPORT["serve"] = _FOUNDATION | {"config", "models", "data", "interop", "prompts", "pretrained", "search", "heatmaps"}
MAY_IMPORT["finetune"] = MAY_IMPORT["train"] | {"train", "planning"}
MAY_IMPORT["cli"] = MAY_IMPORT.keys() - {"cli"}
MAY_IMPORT["__init__"] = {"errors", "data", "models", "prompts", "pretrained"}  # what users import, on request

# Inside a function only: a way round the direction, with the reason for it.
EXCEPTIONS = {("pretrained", "train"): "a run folder that is not finished has no model folder yet: its checkpoint is read"}


def rooms_imported(source: str, module: str) -> list[tuple[str, bool]]:
    """(room, whether at the top level of the module) of each import of ours in `source`."""
    tree = ast.parse(source)
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), module.rpartition(".")[0])
            names = [f"{base}.{alias.name}" if base == PACKAGE else base for alias in node.names]
        found += [(n.split(".")[1], id(node) not in inside) for n in names if n.startswith(f"{PACKAGE}.")]
    return found


PACKAGES = {".".join([PACKAGE, *path.parent.relative_to(ROOT).parts]) for path in ROOT.rglob("__init__.py")}


def wrong_imports(source: str, module: str) -> list[str]:
    """What the table above forbids in `source`; `module` is its dotted name."""
    room = module.split(".")[1]
    allowed = MAY_IMPORT[room] | {room}
    return [
        f"{module} imports {other}"
        for other, at_top in rooms_imported(source, module)
        if other not in allowed and (at_top or (room, other) not in EXCEPTIONS)
    ]


def modules() -> dict[str, str]:
    files = {path.relative_to(ROOT.parent).with_suffix(""): path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")}
    return {".".join(path.parts): source for path, source in files.items()}


def test_every_file_keeps_the_direction() -> None:
    found = modules()
    assert len(found) > 30, "the whole package was read"
    assert {name.split(".")[1] for name in found} == MAY_IMPORT.keys()
    assert [wrong for name, source in found.items() for wrong in wrong_imports(source, name)] == []


def importers() -> dict[str, set[str]]:
    """For each module, the modules that import it. The `__init__` of a package has the package's name."""
    sources = {module.removesuffix(".__init__"): source for module, source in modules().items()}
    found: dict[str, set[str]] = {module: set() for module in sources}
    for module, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    found.get(name if name in sources else node.module, set()).add(module)
    return found


def test_modules_that_only_their_room_needs_begin_with_an_underscore() -> None:
    """Those that nobody outside their package imports; not the verbs of the command, nor what an `__init__` hands on."""
    wrong = []
    for module, users in importers().items():
        package, _, name = module.rpartition(".")
        if package in ("", PACKAGE, f"{PACKAGE}.cli") or name.startswith("__") or not users:
            continue
        inside = all(user.startswith(f"{package}.") for user in users)
        handed_on = package in users and not name.startswith("_")
        if inside != name.startswith("_") and not handed_on and module not in PACKAGES:
            wrong.append(f"{module}: imported by {', '.join(sorted(users))}")
    assert not wrong


def test_the_table_has_no_cycle_and_says_what_the_design_says() -> None:
    """The files obey the table; this is about the table, in which a careless new row would allow anything."""
    reached: set[str] = set()
    while reached != MAY_IMPORT.keys():
        ready = {room for room, others in MAY_IMPORT.items() if others <= reached} - reached
        assert ready, f"a cycle among {MAY_IMPORT.keys() - reached}"
        reached |= ready
    assert not any("cli" in others for others in MAY_IMPORT.values())
    assert {room for room, others in MAY_IMPORT.items() if "sharding" in others} == {
        "losses",
        "pretrained",
        "evaluation",
        "train",
        "bench",
        "planning",
        "finetune",
        "cli",
    }
    assert not MAY_IMPORT["data"] & {"models", "interop"} and "train" not in MAY_IMPORT["evaluation"]


# The files of evaluation that split work over the devices; all others leave that to `Pretrained`.
ON_THE_MESH = {"evaluation.probe._image_tower", "evaluation.retrieval.approximate", "evaluation.retrieval._ranks"}


def test_only_named_files_of_evaluation_know_the_mesh() -> None:
    found = {
        name.removeprefix(f"{PACKAGE}.")
        for name, source in modules().items()
        if name.startswith(f"{PACKAGE}.evaluation.") and any(room == "sharding" for room, _ in rooms_imported(source, name))
    }
    assert found == ON_THE_MESH


def test_no_exception_outlives_its_use() -> None:
    used = {(name.split(".")[1], other) for name, source in modules().items() for other, _ in rooms_imported(source, name)}
    assert EXCEPTIONS.keys() <= used


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("data.text", "from biomedclip_jax.models.vit import ViT"),
        ("data.text", "from biomedclip_jax import models"),
        ("data.text", "from ..models import vit"),
        ("models.vit", "import biomedclip_jax.losses as o"),
        ("models.vit", "def f():\n    from biomedclip_jax.sharding import DATA"),
        ("evaluation.report", "class A:\n    def f(self):\n        import biomedclip_jax.train.main"),
        ("interop.model_files", "from biomedclip_jax.data.text import Tokenizer"),
        ("train.loop", "from biomedclip_jax.cli import main"),
        ("data.pairs", "from biomedclip_jax import CLIP"),  # by way of the lazy names of the package
        ("pretrained", "from biomedclip_jax.train.export import read_run"),  # allowed inside a function only
    ],
)
def test_a_forbidden_import_is_seen(module: str, source: str) -> None:
    assert wrong_imports(source, f"{PACKAGE}.{module}")


def imported_by(code: str, *arguments: str) -> set[str]:
    """The top-level packages that a fresh Python has imported after `code`."""
    code += "\nimport sys; print('imported', *{name.split('.')[0] for name, module in sys.modules.items() if module})"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_starting_the_command_imports_nothing_heavy() -> None:
    """`biomedclip --help` and a typing mistake must not wait seconds for JAX."""
    found = imported_by("import biomedclip_jax, biomedclip_jax.cli")
    assert "biomedclip_jax" in found
    assert not found & {"jax", "flax", "numpy", "torch", "transformers", "PIL", "huggingface_hub", "matplotlib", "grain"}


CLASSIFY = """
import sys
import numpy as np
import biomedclip_jax as bc
clip = bc.from_pretrained(sys.argv[1])
assert clip.classify([np.zeros((40, 50, 3), np.uint8)], ["chest ray", "brain"]).shape == (1, 2)
"""


@pytest.mark.parametrize("tokenizer", ["vocab.txt", "tokenizer.json"])
def test_using_a_model_imports_no_torch(tmp_path: Path, tokenizer: str) -> None:
    """A safetensors folder is used without PyTorch, which users of JAX need not have; nor with it where it is installed."""
    from helpers.reference import open_clip_model
    from transformers import BertTokenizer

    vision = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
    open_clip_model(tmp_path, vision, {"context_length": 16}, bert={"num_hidden_layers": 1})
    if tokenizer == "tokenizer.json":
        BertTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
        (tmp_path / "vocab.txt").unlink()
    assert (tmp_path / tokenizer).is_file()
    found = imported_by(CLASSIFY, str(tmp_path))
    assert {"jax", "tokenizers"} <= found
    assert not found & {"torch", "open_clip", "timm", "torchvision", "transformers", "tensorflow"}
