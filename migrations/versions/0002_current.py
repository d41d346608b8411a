""""Current" is a fact about a run and its configuration, not a row an item (docs/decisions/0009).

Runs get a configuration key, which the rows that they store carry; `current_items` goes. Groups follow from
outcomes and are stored no more. The vector of a culprit region names the attribution that blames it.
What was current in a workspace of 0001 stays so.

Revision 0002, after 0001.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEYED = ("items", "detections", "attributions", "samples")
"""Tables whose rows carry the configuration key of the run that computed them."""

IRRELEVANT = {
    "detect": {"roles"},
    "explain": {"failures", "successes", "detector"},
    "synthesize": {"budget", "attempts"},
}
"""Per stage the settings that say how much is computed, not what; everywhere device and batch size."""


def upgrade() -> None:
    _add_columns()
    connection = op.get_bind()
    runs = {row.id: row for row in connection.execute(sa.text("SELECT id, stage, config, models FROM runs"))}
    keys = {n: _config_key(row.stage, json.loads(row.config), row.models) for n, row in runs.items()}
    _set(connection, "UPDATE runs SET config_key = :key WHERE id = :run", _pairs(keys))
    for table in KEYED:
        _set(connection, f"UPDATE {table} SET config_key = :key WHERE run_id = :run", _pairs(keys))
    for number, row in runs.items():
        config = json.loads(row.config)
        if row.stage in ("query", "synthesize", "verify"):
            scope = config.get("name", "")
        else:
            scope = json.loads(row.models)[0] if row.stage == "explain" and json.loads(row.models) else ""
        facts: dict[str, Any] = {}
        if row.stage == "synthesize" and "budget" in config:
            facts = {"budget": config["budget"], "plans": config["budget"] * config["attempts"]}
        connection.execute(
            sa.text("UPDATE runs SET scope = :scope, facts = :facts WHERE id = :run"),
            {"scope": scope, "facts": _json(facts), "run": number},
        )
    _keep_current(connection, keys)
    _number_samples(connection)
    # What was killed before had not become current; nothing executes it now.
    killed = "UPDATE runs SET status = 'interrupted', aside = :yes WHERE status = 'running'"
    connection.execute(sa.text(killed), {"yes": True})
    op.drop_table("current_items")
    op.drop_table("group_members")
    op.drop_table("groups")
    _add_appearances()


# ---------------------------------------------------------------- appearances (docs/decisions/0008)


def _add_appearances() -> None:
    """What images are compared by; filled from the files by `db upgrade`, or when images are compared."""
    op.create_table(
        "appearances",
        sa.Column("image_id", ID, nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.Column("thumbnail", sa.LargeBinary(), nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_appearances_image_id_images")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_appearances_run_id_runs")),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_appearances")),
    )
    op.create_index(op.f("ix_appearances_run_id"), "appearances", ["run_id"])


# ---------------------------------------------------------------- current


def _add_columns() -> None:
    def text(name: str) -> sa.Column[str]:
        return sa.Column(name, sa.String(), nullable=False, server_default="")

    op.add_column("runs", text("config_key"))
    op.add_column("runs", text("scope"))
    op.add_column("runs", sa.Column("aside", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("runs", sa.Column("facts", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("runs", sa.Column("process", sa.String()))
    for table in KEYED:
        op.add_column(table, text("config_key"))
    op.create_index(op.f("ix_items_stage_config_key"), "items", ["stage", "config_key"])
    op.add_column("samples", sa.Column("number", ID, nullable=False, server_default="0"))
    with op.batch_alter_table("vectors") as batch:
        batch.drop_constraint(op.f("fk_vectors_region_id_regions"), type_="foreignkey")
        batch.drop_column("region_id")
        batch.add_column(sa.Column("attribution_id", ID))
        batch.create_foreign_key(
            op.f("fk_vectors_attribution_id_attributions"), "attributions", ["attribution_id"], ["id"]
        )


def _keep_current(connection: sa.Connection, keys: Mapping[int, str]) -> None:
    """What a stage's newest complete execution covered now carries that run's configuration key."""
    rows = connection.execute(sa.text("SELECT DISTINCT stage, run_id FROM current_items")).all()
    for stage, run in rows:
        values = {"key": keys[run], "stage": stage, "run": run}
        covered = "SELECT key FROM current_items WHERE stage = :stage AND run_id = :run"
        name, _, batch = stage.partition(":")
        if name == "synthesize" and batch:
            connection.execute(
                sa.text(f"UPDATE samples SET config_key = :key WHERE name = :batch AND key IN ({covered})"),
                {**values, "batch": batch},
            )
        elif stage in ("detect", "diagnose"):
            connection.execute(
                sa.text(f"UPDATE items SET config_key = :key WHERE stage = :stage AND key IN ({covered})"),
                values,
            )
            if stage == "detect":
                connection.execute(
                    sa.text(f"UPDATE detections SET config_key = :key WHERE key IN ({covered})"), values
                )
        elif stage == "verify":
            found = connection.execute(sa.text(covered), {"stage": stage, "run": run}).scalars().all()
            trials = connection.execute(
                sa.text("SELECT key FROM trials ORDER BY verification, arm, seed, id")
            ).scalars()
            facts = {"trials": [key for key in trials if key in set(found)]}
            connection.execute(
                sa.text("UPDATE runs SET facts = :facts WHERE id = :run"), {"facts": _json(facts), "run": run}
            )


def _number_samples(connection: sa.Connection) -> None:
    """Samples were stored in the order of their plans."""
    counted: dict[tuple[str, str], int] = {}
    rows = connection.execute(sa.text("SELECT id, name, config_key FROM samples ORDER BY id")).all()
    for number, name, key in rows:
        place = counted[name, key] = counted.get((name, key), -1) + 1
        connection.execute(
            sa.text("UPDATE samples SET number = :place WHERE id = :number"),
            {"place": place, "number": number},
        )


def _config_key(stage: str, config: Mapping[str, Any], models: str) -> str:
    """The key of a configuration of 0001: for `detect` the one that its code still makes."""
    if stage == "detect" and json.loads(models) and "score_floor" in config:
        return _digest(["detect", 1, json.loads(models)[0], config["score_floor"]])
    dropped = {"device", "batch_size", *IRRELEVANT.get(stage, ())}
    settings = {name: value for name, value in config.items() if name not in dropped}
    return _digest(["0001", stage, settings, json.loads(models)])


def _digest(value: Any) -> str:
    return hashlib.sha256(_json(value).encode()).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _pairs(keys: Mapping[int, str]) -> list[dict[str, Any]]:
    return [{"run": run, "key": key} for run, key in keys.items()]


def _set(connection: sa.Connection, statement: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(sa.text(statement), rows)


def downgrade() -> None:
    raise NotImplementedError("0002 drops what was current by item: restore a copy of the workspace instead")
