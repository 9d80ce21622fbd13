"""The notebook runs from its first cell to its last, and shows what its words say."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


# in a process of its own: the client leaves its event loop and sockets open
_EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

source, folder, result = sys.argv[1:]
notebook = nbformat.read(source, as_version=4)
NotebookClient(notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
nbformat.write(notebook, result)
"""


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    source, result = DOCS / "notebook.ipynb", tmp_path / "executed.ipynb"
    assert all(not cell.get("outputs") for cell in nbformat.read(source, as_version=4).cells), "save it without outputs"
    done = subprocess.run([sys.executable, "-c", _EXECUTE, source, DOCS, result], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    notebook = nbformat.read(result, as_version=4)
    said = ["".join(out.get("text", "") for out in cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    assert not [text for text in said if re.search(r"^Traceback|^biomedclip \w+: ", text, re.MULTILINE)]
    (table,) = [text for text in said if "## Zero-shot classification" in text]
    assert "tuned/model" in table
    pictures = [out for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert len(pictures) == 2  # the preview, and what was found
