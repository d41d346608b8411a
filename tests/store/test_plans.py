"""What is asked of a few images looks nothing else up: the plans that SQLite makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from store.records import NewAnnotation
from store.store import Store
from tests.store.conftest import Build


@contextmanager
def plans(store: Store) -> Iterator[list[str]]:
    """The plan of each query that reads."""
    found: list[str] = []
    engine = store._database.engine

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if statement.lstrip().upper().startswith("SELECT"):
            other = cursor.connection.cursor()
            found.extend(str(row[-1]) for row in other.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", explain)


def scanned(steps: list[str], name: str) -> list[str]:
    """Steps that go through a table, or through an index of it, from end to end."""
    return [step for step in steps if step.startswith(f"SCAN {name}")]


def test_labels_of_a_few_images_are_looked_up(sqlite_store: Store, build: type[Build]) -> None:
    run = sqlite_store.begin_run("add", config={})
    images = [build.image(n, annotations=(build.label(),)) for n in range(20)]
    ids = [added.image_id for added in sqlite_store.add_images(run, images)]
    changed: tuple[NewAnnotation, ...] = (build.label("bus"), build.label())
    with plans(sqlite_store) as steps:
        sqlite_store.add_images(run, [build.image(3, annotations=changed)])
        found = sqlite_store.annotations(ids[2:5], reader="query")
    assert [found[i].version for i in ids[2:5]] == [1, 2, 1]
    assert [a.category for a in found[ids[3]].annotations] == ["bus", "car"]
    assert any("annotation_versions" in step for step in steps)
    for name in ("annotation_versions", "annotations", "memberships", "images", "appearances"):
        assert scanned(steps, name) == []
