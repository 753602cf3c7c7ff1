"""Images that are links: a container finds them only where the links lead to places that it sees too."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from rml_search.dataset import is_visible
from rml_search.errors import DataSetError
from rml_search.paths import Workspace, shown


def check_links(folders: Iterable[Path], workspace: Workspace) -> None:
    """Refuses images that a container would not find, although they are found here.

    A container sees the working directory, and of folders outside it what lies in them, all under other names
    than here. So a link holds there if it is relative and stays within. Links that are whole folders of images
    are no matter: they are followed before the folder is mounted.

    Raises:
        DataSetError: a link leads elsewhere; the first one by name is told.
    """
    for folder in folders:
        place = workspace.absolute(folder)
        seen = workspace.root if place.is_relative_to(workspace.root) else place
        link = min((path for path in _links(place) if not _stays_within(path, seen)), default=None)
        if link is not None:
            raise DataSetError(
                f"{shown(link)} is a link to {link.readlink()}, which a container cannot see: copy the images "
                "themselves with cp -rL FOLDER COPY and use the copy, or use --runtime local"
            )


def _links(folder: Path) -> Iterator[Path]:
    """Links in the folder that lead to something."""
    for path in folder.rglob("*"):
        if path.is_symlink() and is_visible(path.relative_to(folder)) and path.exists():
            yield path


def _stays_within(link: Path, folder: Path) -> bool:
    """Whether every step from the link to what it leads to is relative and never climbs above ``folder``."""
    path = link
    while path.is_symlink():
        target = os.path.normpath(path.readlink())
        num_climbs = Path(target).parts.count(os.pardir)
        if Path(target).is_absolute() or num_climbs > len(path.parent.relative_to(folder).parts):
            return False
        path = Path(os.path.normpath(path.parent / target))
    # Where folders on the way are links too, each would need such a look: those are refused.
    return path == link.resolve()
