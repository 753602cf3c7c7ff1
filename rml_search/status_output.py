"""What ``status`` prints: the live view once, as plain text where nobody looks at a terminal."""

from __future__ import annotations

import json

from rml_search.json_output import finite
from rml_search.progress import Progress


def status_text(progress: Progress, *, as_json: bool) -> str:
    """One JSON object, or the rows of the view as wide as the terminal, with colours only there."""
    if as_json:
        return json.dumps(finite(progress.to_json()), allow_nan=False)
    from rich.console import Console

    from rml_search.live_view import SearchView

    console = Console()
    with console.capture() as capture:
        console.print(SearchView(progress))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
