"""A hook of MkDocs: README.md and CONTRIBUTING.md, which lie beside docs/, become pages of the site."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).resolve().parents[2]
_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the two pages; their links are from the top of the repository, those of the site from docs/."""
    for source, page in _PAGES.items():
        text = (_ROOT / source).read_text(encoding="utf-8")
        text = _LINK.sub(lambda link: f"]({_PAGES.get(link[1], link[1].removeprefix('docs/'))}", text)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """In the pages of docs/ a link to ../README.md is one to the first page."""
    return markdown if page.file.src_uri in _PAGES.values() else re.sub(r"\]\(\.\./(\w+\.md)", _to_page, markdown)


def _to_page(link: re.Match[str]) -> str:
    return f"]({_PAGES[link[1]]}"
