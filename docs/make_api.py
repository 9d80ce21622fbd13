"""Write docs/api.md from the docstrings of what Python programs import: `python docs/make_api.py`.

Read from the source, nothing is imported; `tests/docs/test_api.py` fails when the page is not what this would write.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "biomedclip_jax"
# a module; of a package that only hands names on, those names
MODULES = (
    "pretrained",
    "heatmaps",
    "prompts.learned",
    "prompts.templates",
    "config",
    "losses",
    "sharding",
    "data.sources",
    "data.pairs",
    "train.main",
    "evaluation.run",
    "search",
    "errors",
)


def parse(module: str) -> ast.Module:
    """The source of a module below the package, `""` being the package itself."""
    path = ROOT.joinpath(PACKAGE, *filter(None, module.split(".")))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def handed_on(tree: ast.Module) -> dict[str, str]:
    """Name -> the module below the package that it comes from, of what a module imports from the package."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            found |= {alias.asname or alias.name: node.module.removeprefix(f"{PACKAGE}.") for alias in node.names}
    return found


def text_of(node: ast.AST) -> str:
    """The docstring as Markdown: indented blocks and tables stay as they are."""
    return (ast.get_docstring(node) or "").strip() if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) else ""


def signature(node: ast.FunctionDef, name: str) -> str:
    """`name(arguments) -> result` in one line, without self."""
    arguments = re.sub(r"^(self|cls)(, |$)", "", ast.unparse(node.args))
    result = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"`{name}({arguments}){result}`"


def of_class(node: ast.ClassDef) -> list[str]:
    """The parts of a class: its docstring, its fields, its public methods."""
    parts = [f"### `{node.name}`", text_of(node)]
    fields = []
    for i, item in enumerate(node.body):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not item.target.id.startswith("_"):
            default = f" = {ast.unparse(item.value)}" if item.value is not None else ""
            after = node.body[i + 1] if i + 1 < len(node.body) else None
            words = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
                words = ": " + " ".join(after.value.value.split())
            fields.append(f"- `{item.target.id}: {ast.unparse(item.annotation)}{default}`{words}")
    parts.append("\n".join(fields))
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
            own = f"{node.name}.{item.name}"
            known = any(isinstance(d, ast.Name) and d.id == "property" for d in item.decorator_list)
            parts += [
                f"`{own}: {ast.unparse(item.returns)}`" if known and item.returns else signature(item, own),
                text_of(item),
            ]
    return parts


def of_module(module: str) -> list[str]:
    """The parts of a module: its docstring, its public functions and classes, and those that it hands on by `__all__`."""
    tree = parse(module)
    parts = [f"## `{PACKAGE}.{module}`", text_of(tree)]
    nodes = list(tree.body)
    package = (ROOT / PACKAGE / module.replace(".", "/")).is_dir()
    for name, home in handed_on(tree).items() if package else ():
        nodes += [node for node in parse(home).body if getattr(node, "name", None) == name]
    for node in nodes:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            parts += of_class(node)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            parts += [f"### {signature(node, node.name)}", text_of(node)]
    return parts


def page() -> str:
    """The whole page."""
    tree = parse("")
    names = "\n".join(f"- `{name}`, from `{PACKAGE}.{home}`" for name, home in sorted(handed_on(tree).items()))
    parts = [
        "# What Python programs import",
        "Written by `docs/make_api.py` from the docstrings. [architecture.md](architecture.md) says what the letters of shapes "
        "mean.",
        f"## `{PACKAGE}`",
        f"```text\n{text_of(tree)}\n```",
        names,
    ]
    for module in MODULES:
        parts += of_module(module)
    return "\n\n".join(part for part in parts if part) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "api.md").write_text(page(), encoding="utf-8")
