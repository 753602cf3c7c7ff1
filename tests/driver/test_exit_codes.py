"""The README's table of exit codes has every code that the driver can end with, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from rml_optimization import _BROKEN_PIPE
from rml_search.crash import UNEXPECTED
from rml_search.errors import SearchError
from rml_search.interruption import _SIGNALS
from rmldnn_contract.exit_status import ExitStatus

README = Path(__file__).resolve().parents[2] / "README.rst"


def errors(kind: type[SearchError]) -> set[type[SearchError]]:
    return {kind}.union(*(errors(each) for each in kind.__subclasses__()))


def test_readme_lists_all_exit_codes():
    table = README.read_text(encoding="utf-8").split("=" * 15 + " " + "=" * 87)[1]
    listed = [int(code) for line in table.splitlines() for code in re.findall(r"\d+", line[:15])]
    assert len(listed) == len(set(listed))
    from_errors = {error.exit_code for error in errors(SearchError)}
    from_signals = {128 + number for number in _SIGNALS}
    assert set(listed) == from_errors | set(map(int, ExitStatus)) | from_signals | {UNEXPECTED, _BROKEN_PIPE}
