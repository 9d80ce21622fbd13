"""Docstrings are sentences that mean something where an editor shows them alone, in lines that fit."""

import ast
import re
from pathlib import Path

import biomedclip_jax

ROOT = Path(biomedclip_jax.__file__).parent
FEWEST_WORDS, FEWEST_LETTERS, LONGEST_LINE = 4, 20, 120
FRAGMENT = re.compile(r"(Of|As|The same|In|For|With|By|Whether|If) (the |a |an )?\w+\.$")  # "Of the task.", "The same."


def public(tree: ast.Module) -> list[tuple[str, ast.AST]]:
    """The module, and its public functions, classes and methods, by name."""
    found: list[tuple[str, ast.AST]] = [("module", tree)]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            found.append((node.name, node))
            if isinstance(node, ast.ClassDef):
                inside = [n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
                found += [(f"{node.name}.{n.name}", n) for n in inside if not overridden(n)]
    return found


def overridden(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(each).endswith(("override", "overload", ".setter")) for each in node.decorator_list)


def fault(docstring: str | None) -> str | None:
    """What is wrong with a docstring, if anything."""
    if docstring is None:
        return "no docstring"
    first = re.split(r"(?<=[.!?])\s", docstring.strip(), maxsplit=1)[0]
    if len(first.split()) < FEWEST_WORDS or len(first) < FEWEST_LETTERS or FRAGMENT.match(first):
        return f"does not stand alone: {first!r}"
    longest = max(map(len, docstring.splitlines()))
    return f"a line of {longest} letters" if longest >= LONGEST_LINE else None


def faults() -> list[str]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for name, node in public(ast.parse(path.read_text(encoding="utf-8"))):
            assert isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            wrong = fault(ast.get_docstring(node))
            if wrong is not None:
                found.append(f"{path.relative_to(ROOT)}: {name}: {wrong}")
    return found


def test_what_is_a_fault() -> None:
    assert (
        fault(None)
        and fault("Of the task.")
        and fault("As PNG.")
        and fault("The same for other names, at length. " + "x" * 130)
    )
    assert fault("Unit embeddings of images, float32 [B, E].") is None


def test_docstrings_stand_alone() -> None:
    assert faults() == []
