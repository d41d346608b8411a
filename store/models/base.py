"""Base class and column types of the tables."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Dialect,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from store.keys import canonical_json

Identifier = BigInteger().with_variant(Integer, "sqlite")
"""64 bits everywhere: SQLite's rowid needs the plain type name."""


class CanonicalJson(TypeDecorator[Any]):
    """Plain JSON values as canonical text: equal values are equal bytes in both databases."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else canonical_json(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class Moment(TypeDecorator[datetime]):
    """A datetime as ISO text: naive ones (a camera's clock) and aware ones come back as they went in."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        return None if value is None else value.isoformat()

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value)


class Base(DeclarativeBase):
    """Declarative base with a naming convention, so that migrations can name what they change."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        int: Identifier,
        float: Double(),
        str: String(),
        bytes: LargeBinary(),
    }


Id = Annotated[int, mapped_column(Identifier, primary_key=True)]
RunId = Annotated[int, mapped_column(ForeignKey("runs.id"), index=True)]
ImageId = Annotated[int, mapped_column(ForeignKey("images.id"), index=True)]
OutcomeId = Annotated[int, mapped_column(ForeignKey("outcomes.id"), index=True)]
Key = Annotated[str, mapped_column(unique=True)]
Json = Annotated[Any, mapped_column(CanonicalJson)]


class Boxed:
    """A box (x1, y1, x2, y2) in stored-image pixels."""

    x1: Mapped[float]
    y1: Mapped[float]
    x2: Mapped[float]
    y2: Mapped[float]
