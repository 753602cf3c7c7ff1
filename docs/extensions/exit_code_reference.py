"""The exit codes of both programs, as their errors have them."""

from __future__ import annotations

from collections import defaultdict
from inspect import cleandoc

from rml_search.errors import EngineFailedError, SearchError
from rmldnn_contract.exit_status import EngineError, ExitStatus
from rst import code, table

_BOTH, _SEARCH, _ENGINE = "both", "``rml-optimization``", "``rmldnn``"

#: What no class of errors says.
_OTHERS: dict[int, tuple[str, str]] = {
    int(ExitStatus.OK): (_BOTH, "Success."),
    SearchError.exit_code: (_SEARCH, "The engine ended with another exit code, which the message gives."),
    int(ExitStatus.UNEXPECTED): (
        _BOTH,
        "An unexpected error: one line, which names a file with the traceback.",
    ),
    129: (_BOTH, "Stopped by SIGHUP: the terminal was closed. Finished work is kept."),
    130: (_BOTH, "Stopped by SIGINT (Ctrl-C). Finished work is kept."),
    141: (_SEARCH, "The reader of the output closed the pipe."),
    143: (_BOTH, "Stopped by SIGTERM. Finished work is kept."),
}


def exit_codes() -> dict[int, list[tuple[str, str]]]:
    """Exit code -> which program ends with it, and what it means; in the order of the codes."""
    found: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
    for number, row in _OTHERS.items():
        found[number].append(row)
    for search_error in SearchError.__subclasses__():
        if search_error is not EngineFailedError:
            found[search_error.exit_code].append((_SEARCH, _first_line(search_error)))
    for engine_error in EngineError.__subclasses__():
        found[int(engine_error.exit_status)].append((_ENGINE, _first_line(engine_error)))
    return dict(sorted(found.items()))


def _first_line(error: type[Exception]) -> str:
    return cleandoc(error.__doc__ or "").partition("\n\n")[0]


def exit_code_reference() -> str:
    """A table of them."""
    rows = []
    for number, meanings in exit_codes().items():
        for place, (program, meaning) in enumerate(meanings):
            rows.append((code(str(number)) if place == 0 else "", program, meaning))
    return "\n".join(table([("Code", 10), ("Program", 25), ("Meaning", 65)], rows, "codes"))
