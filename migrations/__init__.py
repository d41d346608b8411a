"""Alembic migrations of the workspace database; installed as `store.migrations`."""
