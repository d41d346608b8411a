"""Which classes a data set labels: `dataset_classes`. Data sets of before have no rows: all classes.

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
        "dataset_classes",
        sa.Column("dataset_id", ID, nullable=False),
        sa.Column("category_id", ID, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["category_id"], ["categories.id"], name=op.f("fk_dataset_classes_category_id_categories")
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_classes_dataset_id_datasets")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_dataset_classes_run_id_runs")),
        sa.PrimaryKeyConstraint("dataset_id", "category_id", name=op.f("pk_dataset_classes")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_dataset_classes_run_id"), "dataset_classes", ["run_id"])


def downgrade() -> None:
    op.drop_table("dataset_classes")
