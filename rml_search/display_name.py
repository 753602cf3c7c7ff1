"""Which way of showing a search a person has chosen."""

from __future__ import annotations

from enum import Enum

from rml_search.errors import OptionError


class DisplayName(str, Enum):
    """What ``--plain``, ``--quiet`` and ``--json`` choose between."""

    AUTO = "auto"  #: live on a terminal that can move its cursor, else plain
    PLAIN = "plain"
    QUIET = "quiet"
    JSON = "json"


def display_name(*, plain: bool = False, quiet: bool = False, as_json: bool = False) -> DisplayName:
    """The one that was asked for. Raises OptionError for two."""
    given = {DisplayName.PLAIN: plain, DisplayName.QUIET: quiet, DisplayName.JSON: as_json}
    chosen = [name for name, is_given in given.items() if is_given]
    if len(chosen) > 1:
        raise OptionError(f"--{chosen[0].value} and --{chosen[1].value} cannot be combined")
    return chosen[0] if chosen else DisplayName.AUTO
