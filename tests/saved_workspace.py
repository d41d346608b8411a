"""The workspaces that older versions of the schema wrote, unpacked (see tests/store/test_upgrade.py)."""

from __future__ import annotations

import sqlite3
import zipfile
from pathlib import Path

SAVED = Path(__file__).parent / "store" / "data"


def unpack(folder: Path, version: str = "0001") -> Path:
    """Unpack one beneath `folder`, not upgraded; returns the workspace."""
    with zipfile.ZipFile(SAVED / f"workspace-{version}.zip") as archive:
        archive.extractall(folder)
    database = sqlite3.connect(folder / "ws" / "curator.db")
    for table, column in (("images", "uri"), ("runs", "config")):
        database.execute(f"UPDATE {table} SET {column} = replace({column}, 'FOLDER', ?)", (str(folder),))
    database.commit()
    database.close()
    return folder / "ws"
