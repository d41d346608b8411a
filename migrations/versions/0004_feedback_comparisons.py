"""What people say of a query's hits, and how unlike pictures were found: `feedback`, `comparisons`.

Revision 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("selection", sa.String(), nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("group_name", sa.String(), nullable=False),
        sa.Column("x1", sa.Double(), nullable=False),
        sa.Column("y1", sa.Double(), nullable=False),
        sa.Column("x2", sa.Double(), nullable=False),
        sa.Column("y2", sa.Double(), nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_feedback_image_id_images")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_feedback_run_id_runs")),
        sa.PrimaryKeyConstraint("selection", "image_id", name=op.f("pk_feedback")),
    )
    op.create_index(op.f("ix_feedback_image_id"), "feedback", ["image_id"])
    op.create_index(op.f("ix_feedback_run_id"), "feedback", ["run_id"])
    op.create_table(
        "comparisons",
        sa.Column("image_a", ID, nullable=False),
        sa.Column("image_b", ID, nullable=False),
        sa.Column("mirrored", sa.Boolean(), nullable=False),
        sa.Column("measure", sa.SmallInteger(), nullable=False),
        sa.Column("unlikeness", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["image_a"], ["images.id"], name=op.f("fk_comparisons_image_a_images")),
        sa.ForeignKeyConstraint(["image_b"], ["images.id"], name=op.f("fk_comparisons_image_b_images")),
        sa.PrimaryKeyConstraint("image_a", "image_b", "mirrored", "measure", name=op.f("pk_comparisons")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_comparisons_image_b"), "comparisons", ["image_b"])


def downgrade() -> None:
    op.drop_table("comparisons")
    op.drop_table("feedback")
