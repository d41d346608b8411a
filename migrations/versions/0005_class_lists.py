"""Which classes an image's labels speak of: `class_lists`, `listed_images`. Images of before: all classes.

Revision 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "class_lists",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("names", sa.Text(), nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_class_lists_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_class_lists")),
        sa.UniqueConstraint("key", name=op.f("uq_class_lists_key")),
    )
    op.create_index(op.f("ix_class_lists_run_id"), "class_lists", ["run_id"])
    op.create_table(
        "listed_images",
        sa.Column("image_id", ID, nullable=False),
        sa.Column("class_list_id", ID, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["class_list_id"], ["class_lists.id"], name=op.f("fk_listed_images_class_list_id_class_lists")
        ),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_listed_images_image_id_images")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_listed_images_run_id_runs")),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_listed_images")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_listed_images_class_list_id"), "listed_images", ["class_list_id"])
    op.create_index(op.f("ix_listed_images_run_id"), "listed_images", ["run_id"])


def downgrade() -> None:
    op.drop_table("listed_images")
    op.drop_table("class_lists")
