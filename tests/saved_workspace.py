"""The workspace that version 0001 of the schema wrote, unpacked (see tests/store/test_upgrade.py)."""

from __future__ import annotations

import sqlite3
import zipfile
from pathlib import Path

SAVED = Path(__file__).parent / "store" / "data" / "workspace-0001.zip"


def unpack(folder: Path) -> Path:
    """Unpack it beneath `folder`, not upgraded; returns the workspace."""
    with zipfile.ZipFile(SAVED) as archive:
        archive.extractall(folder)
    database = sqlite3.connect(folder / "ws" / "curator.db")
    for table, column in (("images", "uri"), ("runs", "config")):
        database.execute(f"UPDATE {table} SET {column} = replace({column}, 'FOLDER', ?)", (str(folder),))
    database.commit()
    database.close()
    return folder / "ws"
