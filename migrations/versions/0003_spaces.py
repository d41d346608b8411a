"""What images offer a query lies in columnar files, with one row an image in SQL.

The tables `vectors` and `vector_spaces` go with all that they hold, and so do the done items of `index`:
vectors are derived, and `curator index` computes them anew. Their files (`vectors/*.f32`, `vectors/*.faiss`)
are removed by the next command that opens the workspace and may write. Hits lose their vector and get a
reason. Runs of `index` are kept as history, aside: none of them is current.

Revision 0003, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("hits") as batch:
        batch.drop_constraint(op.f("fk_hits_vector_id_vectors"), type_="foreignkey")
        batch.drop_column("vector_id")
        batch.add_column(sa.Column("reason", sa.Text(), nullable=False, server_default=""))
    op.drop_table("vectors")
    op.drop_table("vector_spaces")
    connection = op.get_bind()
    connection.execute(sa.text("DELETE FROM items WHERE stage = 'index'"))
    connection.execute(sa.text("UPDATE runs SET aside = :yes WHERE stage = 'index'"), {"yes": True})
    _create_spaces()
    _create_indexed_images()


def _create_spaces() -> None:
    op.create_table(
        "spaces",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("views", sa.Text(), nullable=False),
        sa.Column("image_views", sa.Text(), nullable=False),
        sa.Column("classes", ID, nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("arrays", sa.String(), nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_spaces_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spaces")),
        sa.UniqueConstraint("name", name=op.f("uq_spaces_name")),
    )
    op.create_index(op.f("ix_spaces_run_id"), "spaces", ["run_id"])


def _create_indexed_images() -> None:
    op.create_table(
        "indexed_images",
        sa.Column("space_id", ID, nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("place", ID, nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("key", sa.LargeBinary(16), nullable=False),
        sa.Column("first_box", ID, nullable=False),
        sa.Column("boxes", ID, nullable=False),
        sa.Column("first_candidate", ID, nullable=False),
        sa.Column("candidates", ID, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_indexed_images_image_id_images")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_indexed_images_run_id_runs")),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_indexed_images_space_id_spaces")),
        sa.PrimaryKeyConstraint("space_id", "kind", "place", name=op.f("pk_indexed_images")),
        sa.UniqueConstraint("space_id", "kind", "key", name=op.f("uq_indexed_images_space_id_kind_key")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_indexed_images_image_id"), "indexed_images", ["image_id"])


def downgrade() -> None:
    raise NotImplementedError("0003 drops vectors: restore a copy of the workspace instead")
