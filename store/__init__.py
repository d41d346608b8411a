"""Persistence of curator workspaces: SQL, blobs and vector files behind one `Store`."""
