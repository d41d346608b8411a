"""The first schema: every table of the loop, on SQLite and PostgreSQL.

Revision 0001, after none.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def column(name: str, kind: sa.types.TypeEngine[Any], **options: Any) -> sa.Column[Any]:
    """A column that must have a value."""
    return sa.Column(name, kind, nullable=False, **options)


def upgrade() -> None:
    op.create_table(
        "categories",
        column("id", ID),
        column("name", sa.String()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_categories")),
        sa.UniqueConstraint("name", name=op.f("uq_categories_name")),
    )
    op.create_table(
        "datasets",
        column("id", ID),
        column("name", sa.String()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("name", name=op.f("uq_datasets_name")),
    )
    op.create_table(
        "models",
        column("id", ID),
        column("spec", sa.String()),
        column("fingerprint", sa.String()),
        column("classes", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sa.UniqueConstraint("fingerprint", "spec", name=op.f("uq_models_fingerprint_spec")),
    )
    op.create_table(
        "runs",
        column("id", ID),
        column("stage", sa.String()),
        column("status", sa.String()),
        column("config", sa.Text()),
        sa.Column("seed", ID),
        column("code_version", sa.String()),
        column("host", sa.String()),
        column("models", sa.Text()),
        column("parents", sa.Text()),
        column("started_at", sa.String(40)),
        sa.Column("finished_at", sa.String(40)),
        column("counts", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index(op.f("ix_runs_stage"), "runs", ["stage"])
    op.create_table(
        "current_items",
        column("stage", sa.String()),
        column("key", sa.String()),
        column("run_id", ID),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_current_items_run_id_runs")),
        sa.PrimaryKeyConstraint("stage", "key", name=op.f("pk_current_items")),
    )
    op.create_index(op.f("ix_current_items_run_id"), "current_items", ["run_id"])
    op.create_table(
        "dataset_versions",
        column("id", ID),
        column("name", sa.String()),
        column("image_ids", sa.Text()),
        column("sample_ids", sa.Text()),
        column("manifest", sa.Text()),
        column("key", sa.String()),
        column("run_id", ID),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_dataset_versions_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_versions")),
        sa.UniqueConstraint("name", "key", name=op.f("uq_dataset_versions_name_key")),
    )
    op.create_index(op.f("ix_dataset_versions_run_id"), "dataset_versions", ["run_id"])
    op.create_table(
        "groups",
        column("id", ID),
        column("name", sa.String()),
        column("kind", sa.String()),
        sa.Column("cause", sa.String()),
        column("category", sa.String()),
        column("key", sa.String()),
        column("run_id", ID),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_groups_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_groups")),
        sa.UniqueConstraint("key", name=op.f("uq_groups_key")),
    )
    op.create_index(op.f("ix_groups_run_id"), "groups", ["run_id"])
    op.create_table(
        "images",
        column("id", ID),
        column("uri", sa.String()),
        column("sha256", sa.String()),
        column("phash", sa.String()),
        column("width", ID),
        column("height", ID),
        column("run_id", ID),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_images_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        sa.UniqueConstraint("sha256", name=op.f("uq_images_sha256")),
    )
    op.create_index(op.f("ix_images_run_id"), "images", ["run_id"])
    op.create_table(
        "selections",
        column("id", ID),
        column("name", sa.String()),
        column("arm", sa.String()),
        column("config", sa.Text()),
        column("key", sa.String()),
        column("run_id", ID),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_selections_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_selections")),
        sa.UniqueConstraint("name", name=op.f("uq_selections_name")),
    )
    op.create_index(op.f("ix_selections_run_id"), "selections", ["run_id"])
    op.create_table(
        "trials",
        column("id", ID),
        column("verification", sa.String()),
        column("arm", sa.String()),
        column("seed", ID),
        column("metrics", sa.Text()),
        column("key", sa.String()),
        column("run_id", ID),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_trials_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trials")),
        sa.UniqueConstraint("key", name=op.f("uq_trials_key")),
    )
    op.create_index(op.f("ix_trials_run_id"), "trials", ["run_id"])
    op.create_index(op.f("ix_trials_verification"), "trials", ["verification"])
    op.create_table(
        "vector_spaces",
        column("id", ID),
        column("embedder", sa.String()),
        column("view", sa.String()),
        column("dimension", ID),
        column("committed", ID),
        column("run_id", ID),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_vector_spaces_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vector_spaces")),
        sa.UniqueConstraint("embedder", "view", name=op.f("uq_vector_spaces_embedder_view")),
    )
    op.create_index(op.f("ix_vector_spaces_run_id"), "vector_spaces", ["run_id"])
    op.create_table(
        "annotation_versions",
        column("id", ID),
        column("image_id", ID),
        column("version", ID),
        column("key", sa.String()),
        column("status", sa.String()),
        column("run_id", ID),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_annotation_versions_image_id_images")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_annotation_versions_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotation_versions")),
        sa.UniqueConstraint("image_id", "version", name=op.f("uq_annotation_versions_image_id_version")),
    )
    op.create_index(op.f("ix_annotation_versions_run_id"), "annotation_versions", ["run_id"])
    op.create_table(
        "detections",
        column("id", ID),
        column("image_id", ID),
        column("model_id", ID),
        column("boxes", sa.LargeBinary()),
        column("scores", sa.LargeBinary()),
        column("labels", sa.LargeBinary()),
        column("candidates", sa.LargeBinary()),
        column("pin", sa.Text()),
        column("key", sa.String()),
        column("run_id", ID),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_detections_image_id_images")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_detections_model_id_models")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_detections_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_detections")),
        sa.UniqueConstraint("key", name=op.f("uq_detections_key")),
    )
    op.create_index(op.f("ix_detections_image_id"), "detections", ["image_id"])
    op.create_index(op.f("ix_detections_model_id_image_id"), "detections", ["model_id", "image_id"])
    op.create_index(op.f("ix_detections_run_id"), "detections", ["run_id"])
    op.create_table(
        "items",
        column("stage", sa.String()),
        column("key", sa.String()),
        column("status", sa.String()),
        column("run_id", ID),
        sa.Column("image_id", ID),
        sa.Column("message", sa.String()),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_items_image_id_images")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_items_run_id_runs")),
        sa.PrimaryKeyConstraint("stage", "key", name=op.f("pk_items")),
    )
    op.create_index(op.f("ix_items_run_id"), "items", ["run_id"])
    op.create_table(
        "memberships",
        column("id", ID),
        column("image_id", ID),
        column("dataset_id", ID),
        column("role", sa.String()),
        sa.Column("split", sa.String()),
        sa.Column("group_key", sa.String()),
        sa.Column("captured_at", sa.String(40)),
        sa.Column("source", sa.String()),
        column("run_id", ID),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_memberships_dataset_id_datasets")
        ),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_memberships_image_id_images")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_memberships_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_memberships")),
        sa.UniqueConstraint(
            "image_id", "dataset_id", "role", name=op.f("uq_memberships_image_id_dataset_id_role")
        ),
    )
    op.create_index(op.f("ix_memberships_role_image_id"), "memberships", ["role", "image_id"])
    op.create_index(op.f("ix_memberships_run_id"), "memberships", ["run_id"])
    op.create_table(
        "segmentations",
        column("id", ID),
        column("image_id", ID),
        column("png", sa.LargeBinary()),
        column("key", sa.String()),
        sa.Column("run_id", ID),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_segmentations_image_id_images")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_segmentations_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segmentations")),
        sa.UniqueConstraint("key", name=op.f("uq_segmentations_key")),
    )
    op.create_index(op.f("ix_segmentations_image_id"), "segmentations", ["image_id"])
    op.create_index(op.f("ix_segmentations_run_id"), "segmentations", ["run_id"])
    op.create_table(
        "tags",
        column("image_id", ID),
        column("name", sa.String()),
        column("value", sa.String()),
        column("run_id", ID),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_tags_image_id_images")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_tags_run_id_runs")),
        sa.PrimaryKeyConstraint("image_id", "name", name=op.f("pk_tags")),
    )
    op.create_index(op.f("ix_tags_run_id"), "tags", ["run_id"])
    op.create_table(
        "annotations",
        column("id", ID),
        column("version_id", ID),
        column("category_id", ID),
        column("crowd", sa.Boolean()),
        column("difficult", sa.Boolean()),
        sa.Column("polygon", sa.Text()),
        column("attributes", sa.Text()),
        column("x1", sa.Double()),
        column("y1", sa.Double()),
        column("x2", sa.Double()),
        column("y2", sa.Double()),
        sa.ForeignKeyConstraint(
            ["category_id"], ["categories.id"], name=op.f("fk_annotations_category_id_categories")
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["annotation_versions.id"],
            name=op.f("fk_annotations_version_id_annotation_versions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotations")),
    )
    op.create_index(op.f("ix_annotations_version_id"), "annotations", ["version_id"])
    op.create_table(
        "outcomes",
        column("id", ID),
        column("image_id", ID),
        column("model_id", ID),
        column("kind", sa.String()),
        sa.Column("cause", sa.String()),
        column("category", sa.String()),
        column("score", sa.Double()),
        column("iou", sa.Double()),
        column("target_candidate", ID),
        column("target_label", ID),
        column("target_rule", sa.String()),
        column("target_score", sa.Double()),
        column("target_iou", sa.Double()),
        sa.Column("annotation_id", ID),
        sa.Column("detection_index", ID),
        column("key", sa.String()),
        column("run_id", ID),
        column("x1", sa.Double()),
        column("y1", sa.Double()),
        column("x2", sa.Double()),
        column("y2", sa.Double()),
        sa.ForeignKeyConstraint(
            ["annotation_id"], ["annotations.id"], name=op.f("fk_outcomes_annotation_id_annotations")
        ),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_outcomes_image_id_images")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_outcomes_model_id_models")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_outcomes_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outcomes")),
        sa.UniqueConstraint("key", name=op.f("uq_outcomes_key")),
    )
    op.create_index(op.f("ix_outcomes_image_id"), "outcomes", ["image_id"])
    op.create_index(op.f("ix_outcomes_run_id"), "outcomes", ["run_id"])
    op.create_table(
        "attributions",
        column("id", ID),
        column("outcome_id", ID),
        column("method", sa.String()),
        sa.Column("segmentation_id", ID),
        column("map", sa.LargeBinary()),
        sa.Column("height", ID),
        sa.Column("width", ID),
        sa.Column("scale_x", sa.Double()),
        sa.Column("scale_y", sa.Double()),
        sa.Column("offset_x", sa.Double()),
        sa.Column("offset_y", sa.Double()),
        sa.Column("full", sa.Double()),
        sa.Column("empty", sa.Double()),
        sa.Column("gap", sa.Double()),
        column("passes", ID),
        column("evidence", sa.Boolean()),
        column("extra", sa.Text()),
        column("key", sa.String()),
        column("run_id", ID),
        sa.ForeignKeyConstraint(
            ["outcome_id"], ["outcomes.id"], name=op.f("fk_attributions_outcome_id_outcomes")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_attributions_run_id_runs")),
        sa.ForeignKeyConstraint(
            ["segmentation_id"],
            ["segmentations.id"],
            name=op.f("fk_attributions_segmentation_id_segmentations"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attributions")),
        sa.UniqueConstraint("key", name=op.f("uq_attributions_key")),
    )
    op.create_index(op.f("ix_attributions_outcome_id_method"), "attributions", ["outcome_id", "method"])
    op.create_index(op.f("ix_attributions_run_id"), "attributions", ["run_id"])
    op.create_table(
        "group_members",
        column("group_id", ID),
        column("success", sa.Boolean()),
        column("position", ID),
        column("outcome_id", ID),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name=op.f("fk_group_members_group_id_groups"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["outcome_id"], ["outcomes.id"], name=op.f("fk_group_members_outcome_id_outcomes")
        ),
        sa.PrimaryKeyConstraint("group_id", "success", "position", name=op.f("pk_group_members")),
    )
    op.create_index(op.f("ix_group_members_outcome_id"), "group_members", ["outcome_id"])
    op.create_table(
        "outcome_items",
        column("item_key", sa.String()),
        column("outcome_id", ID),
        column("run_id", ID),
        sa.ForeignKeyConstraint(
            ["outcome_id"], ["outcomes.id"], name=op.f("fk_outcome_items_outcome_id_outcomes")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_outcome_items_run_id_runs")),
        sa.PrimaryKeyConstraint("item_key", "outcome_id", name=op.f("pk_outcome_items")),
    )
    op.create_index(op.f("ix_outcome_items_outcome_id"), "outcome_items", ["outcome_id"])
    op.create_index(op.f("ix_outcome_items_run_id"), "outcome_items", ["run_id"])
    op.create_table(
        "samples",
        column("id", ID),
        column("name", sa.String()),
        column("blob", sa.String()),
        column("width", ID),
        column("height", ID),
        column("recipe", sa.String()),
        column("group_name", sa.String()),
        column("scene_image_id", ID),
        sa.Column("exemplar_image_id", ID),
        sa.Column("outcome_id", ID),
        column("annotations", sa.Text()),
        column("seed", ID),
        column("key", sa.String()),
        column("run_id", ID),
        column("x1", sa.Double()),
        column("y1", sa.Double()),
        column("x2", sa.Double()),
        column("y2", sa.Double()),
        sa.ForeignKeyConstraint(
            ["exemplar_image_id"], ["images.id"], name=op.f("fk_samples_exemplar_image_id_images")
        ),
        sa.ForeignKeyConstraint(["outcome_id"], ["outcomes.id"], name=op.f("fk_samples_outcome_id_outcomes")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_samples_run_id_runs")),
        sa.ForeignKeyConstraint(
            ["scene_image_id"], ["images.id"], name=op.f("fk_samples_scene_image_id_images")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_samples")),
        sa.UniqueConstraint("key", name=op.f("uq_samples_key")),
    )
    op.create_index(op.f("ix_samples_name"), "samples", ["name"])
    op.create_index(op.f("ix_samples_run_id"), "samples", ["run_id"])
    op.create_table(
        "regions",
        column("id", ID),
        column("attribution_id", ID),
        column("outcome_id", ID),
        column("image_id", ID),
        column("kind", sa.String()),
        column("segments", sa.Text()),
        column("weight", sa.Double()),
        column("key", sa.String()),
        column("run_id", ID),
        column("x1", sa.Double()),
        column("y1", sa.Double()),
        column("x2", sa.Double()),
        column("y2", sa.Double()),
        sa.ForeignKeyConstraint(
            ["attribution_id"], ["attributions.id"], name=op.f("fk_regions_attribution_id_attributions")
        ),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_regions_image_id_images")),
        sa.ForeignKeyConstraint(["outcome_id"], ["outcomes.id"], name=op.f("fk_regions_outcome_id_outcomes")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_regions_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_regions")),
        sa.UniqueConstraint("key", name=op.f("uq_regions_key")),
    )
    op.create_index(op.f("ix_regions_attribution_id"), "regions", ["attribution_id"])
    op.create_index(op.f("ix_regions_image_id"), "regions", ["image_id"])
    op.create_index(op.f("ix_regions_outcome_id"), "regions", ["outcome_id"])
    op.create_index(op.f("ix_regions_run_id"), "regions", ["run_id"])
    op.create_table(
        "verdicts",
        column("sample_id", ID),
        column("position", ID),
        column("check", sa.String()),
        column("accepted", sa.Boolean()),
        sa.Column("value", sa.Double()),
        sa.Column("bound", sa.Double()),
        column("reason", sa.Text()),
        column("run_id", ID),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_verdicts_run_id_runs")),
        sa.ForeignKeyConstraint(
            ["sample_id"], ["samples.id"], name=op.f("fk_verdicts_sample_id_samples"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sample_id", "position", name=op.f("pk_verdicts")),
    )
    op.create_index(op.f("ix_verdicts_run_id"), "verdicts", ["run_id"])
    op.create_table(
        "vectors",
        column("id", ID, autoincrement=False),
        column("space_id", ID),
        column("position", ID),
        column("item_key", sa.String()),
        column("ordinal", ID),
        column("image_id", ID),
        column("source", sa.String()),
        sa.Column("outcome_id", ID),
        sa.Column("region_id", ID),
        column("score", sa.Double()),
        column("label", ID),
        column("run_id", ID),
        column("x1", sa.Double()),
        column("y1", sa.Double()),
        column("x2", sa.Double()),
        column("y2", sa.Double()),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_vectors_image_id_images")),
        sa.ForeignKeyConstraint(["outcome_id"], ["outcomes.id"], name=op.f("fk_vectors_outcome_id_outcomes")),
        sa.ForeignKeyConstraint(["region_id"], ["regions.id"], name=op.f("fk_vectors_region_id_regions")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_vectors_run_id_runs")),
        sa.ForeignKeyConstraint(
            ["space_id"], ["vector_spaces.id"], name=op.f("fk_vectors_space_id_vector_spaces")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vectors")),
        sa.UniqueConstraint(
            "space_id", "item_key", "ordinal", name=op.f("uq_vectors_space_id_item_key_ordinal")
        ),
        sa.UniqueConstraint("space_id", "position", name=op.f("uq_vectors_space_id_position")),
    )
    op.create_index(op.f("ix_vectors_image_id"), "vectors", ["image_id"])
    op.create_index(op.f("ix_vectors_outcome_id"), "vectors", ["outcome_id"])
    op.create_index(op.f("ix_vectors_run_id"), "vectors", ["run_id"])
    op.create_table(
        "hits",
        column("selection_id", ID),
        column("position", ID),
        column("rank", ID),
        column("image_id", ID),
        sa.Column("outcome_id", ID),
        sa.Column("vector_id", ID),
        column("group_name", sa.String()),
        column("score", sa.Double()),
        column("x1", sa.Double()),
        column("y1", sa.Double()),
        column("x2", sa.Double()),
        column("y2", sa.Double()),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_hits_image_id_images")),
        sa.ForeignKeyConstraint(["outcome_id"], ["outcomes.id"], name=op.f("fk_hits_outcome_id_outcomes")),
        sa.ForeignKeyConstraint(
            ["selection_id"],
            ["selections.id"],
            name=op.f("fk_hits_selection_id_selections"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["vector_id"], ["vectors.id"], name=op.f("fk_hits_vector_id_vectors")),
        sa.PrimaryKeyConstraint("selection_id", "position", name=op.f("pk_hits")),
        sa.UniqueConstraint("selection_id", "image_id", name=op.f("uq_hits_selection_id_image_id")),
    )
    op.create_index(op.f("ix_hits_image_id"), "hits", ["image_id"])


def downgrade() -> None:
    raise NotImplementedError("0001 is the first schema: nothing lies below it")
