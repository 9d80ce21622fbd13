"""No function takes more parameters, and no file has more lines, than a reader keeps in mind."""

import ast
from pathlib import Path

import biomedclip_jax

ROOT = Path(biomedclip_jax.__file__).parent
MOST_PARAMETERS = 7
MOST_LINES = 350


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many it takes, `self` and `cls` not counted."""
    names = [each.arg for each in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_functions_have_few_parameters() -> None:
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and parameters(node) > MOST_PARAMETERS:
                found.add(f"{path.relative_to(ROOT).as_posix()}: {node.name}")
    assert found == set()


def test_files_are_short() -> None:
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in ROOT.rglob("*.py")}
    assert {name for name, count in lines.items() if count > MOST_LINES} == set()
