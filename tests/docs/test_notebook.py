"""The notebook runs from its first cell to its last, and shows what its words say."""

import re
from pathlib import Path

import nbformat
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own packages, in this process; what the cells do is in another
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    notebook = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "save it without outputs"
    NotebookClient(notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(DOCS)}}).execute()
    said = ["".join(out.get("text", "") for out in cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    assert not [text for text in said if re.search(r"^Traceback|^biomedclip \w+: ", text, re.MULTILINE)]
    (table,) = [text for text in said if "## Zero-shot classification" in text]
    assert "tuned/model" in table
    pictures = [out for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert len(pictures) == 2  # the preview, and what was found
