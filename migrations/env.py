"""Alembic environment: runs the migrations on the connection that `store.schema` hands over."""

from __future__ import annotations

from alembic import context

from store.models import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite changes a table by rebuilding it
    compare_type=True,
    transactional_ddl=True,  # both databases roll a failed migration back; `store.schema` commits
)
context.run_migrations()
