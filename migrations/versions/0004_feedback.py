"""What people say of a query's hits: the table `feedback`.

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


def downgrade() -> None:
    op.drop_table("feedback")
