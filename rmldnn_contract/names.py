"""Names that people type in any case, and the nearest known one when they mistype."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def canonical_name(name: str, known: Iterable[str]) -> str | None:
    """The spelling of ``name`` among ``known``, whatever its case; None if it is not among them."""
    folded = name.strip().casefold()
    return next((candidate for candidate in known if candidate.casefold() == folded), None)


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The name among ``known`` that ``name`` was most likely meant to be; None if none is near."""
    spellings = {candidate.casefold(): candidate for candidate in known}
    folded = name.strip().casefold()
    beginnings = [candidate for candidate in spellings if len(folded) > 1 and candidate.startswith(folded)]
    matches = beginnings or get_close_matches(folded, spellings, n=1, cutoff=0.5)
    return spellings[matches[0]] if matches else None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that is not known, with the nearest known one, or all of them."""
    candidates = tuple(known)
    nearest = nearest_name(name, candidates)
    hint = f"did you mean {nearest!r}?" if nearest else f"known are {', '.join(candidates)}"
    return f"unknown {kind} {name.strip()!r}: {hint}"
