"""Selectors: how people name failures on the command line, e.g. `FN:miss,class=Car`.

Grammar: alternatives joined by ";", each `KIND[:CAUSE][,class=NAME][,id=N+N]`; "" selects all failures.
`class=NAME` alone is a class's failures of both kinds; among several alternatives it is refused, as a slip of
";" for ",". `id=12+40` names failures by the numbers that the page (`curator review`) shows; the next
diagnosis gives others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from curator.errors import InputError
from store.records import FN_CAUSES, FP_CAUSES, Outcome


@dataclass(frozen=True, slots=True)
class Alternative:
    """One alternative of a selector; None matches anything."""

    kind: str | None
    cause: str | None
    category: str | None
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FailureSelector:
    """A parsed selector."""

    alternatives: tuple[Alternative, ...]

    @classmethod
    def parse(cls, text: str) -> FailureSelector:
        """Parse `text`.

        Raises:
            InputError: unknown kind, cause or key, with the choices; one of several alternatives has no kind.
        """
        parts = [part.strip() for part in text.split(";") if part.strip()]
        found = tuple(_alternative(part) for part in parts)
        for number, alternative in enumerate(found):
            if len(found) > 1 and alternative.kind is None and not alternative.ids:
                before = found[number - 1] if number else None
                start = parts[number - 1] if before and before.kind and not before.category else "FN"
                raise InputError(
                    f"failures: expected FN or FP at the start of every alternative (';' begins one), got "
                    f"{parts[number]!r}; a class is joined by ',': {start},{parts[number]}"
                )
        return cls(found)

    def among(self, outcomes: Iterable[Outcome]) -> list[Outcome]:
        """The failures of `outcomes` that it names.

        Raises:
            InputError: it names a class or number that no outcome has: a typing error should ask for nothing.
        """
        every = list(outcomes)
        numbers = {outcome.id for outcome in every}
        for number in (number for a in self.alternatives for number in a.ids):
            if number not in numbers:
                raise InputError(
                    f"failures: no failure has the number {number}; numbers are given anew by every diagnosis"
                )
        known = sorted({outcome.category for outcome in every})
        for name in (a.category for a in self.alternatives):
            if name is not None and name not in known:
                raise InputError(
                    f"failures: no failure matches; no outcome has the class {name!r}; there are "
                    f"{', '.join(known) or 'none'}"
                )
        return [outcome for outcome in every if self.matches(outcome)]

    def matches(self, outcome: Outcome) -> bool:
        """True for failures that the selector names; never for a success."""
        if outcome.kind == "TP":
            return False
        return not self.alternatives or any(
            (a.kind is None or a.kind == outcome.kind)
            and (a.cause is None or a.cause == outcome.cause)
            and (a.category is None or a.category == outcome.category)
            and (not a.ids or outcome.id in a.ids)
            for a in self.alternatives
        )


def _alternative(text: str) -> Alternative:
    kind = cause = category = None
    ids: tuple[int, ...] = ()
    for number, part in enumerate(text.split(",")):
        key, equals, value = part.strip().partition("=")
        if equals and key == "class":
            category = value
        elif equals and key == "id" and all(one.isdecimal() for one in value.split("+")):
            ids = tuple(int(one) for one in value.split("+"))
        elif not equals and number == 0:
            kind, _, name = key.partition(":")
            cause = name or None
        else:
            raise InputError(f"failures: expected KIND[:CAUSE][,class=NAME][,id=N+N], got {text!r}")
    if kind is not None and kind not in ("FP", "FN"):
        raise InputError(f"failures: expected FP or FN, got {kind!r} in {text!r}")
    known = {"FP": FP_CAUSES, "FN": FN_CAUSES}.get(kind or "", FP_CAUSES + FN_CAUSES)
    if cause is not None and cause not in known:
        raise InputError(f"failures: {kind} has the causes {', '.join(known)}; got {cause!r} in {text!r}")
    return Alternative(kind, cause, category, ids)
