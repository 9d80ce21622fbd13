"""`open_index`: whatever keeps the vectors, a folder or a server."""

from pathlib import Path

from biomedclip_jax.errors import UserError
from biomedclip_jax.search._folder import check_files, read_manifest
from biomedclip_jax.search._folder_index import FolderIndex
from biomedclip_jax.search._server import is_address
from biomedclip_jax.search._server_index import open_collection
from biomedclip_jax.search.index import Index


def open_index(where: str | Path) -> Index:
    """Open an index that `biomedclip index` has made, a folder or `http://HOST:6333/COLLECTION` on a Qdrant server.

    UserError for what is none, for one that is damaged, and for a server that does not answer.
    """
    if is_address(where):
        return open_collection(str(where))
    folder = Path(where)
    for last in (False, False, True):  # another process may put a new state in its place meanwhile
        manifest = read_manifest(folder)
        if manifest is None:
            what = "no index in this folder" if folder.is_dir() else "no such folder"
            raise UserError(f"{folder}: {what}; expected one that `biomedclip index --out` has made")
        try:
            check_files(folder, manifest)
            return FolderIndex(folder, manifest)
        except FileNotFoundError:
            if last:
                raise UserError(f"{folder / manifest.state}: is missing; remove {folder}, and index again") from None
    raise AssertionError
