"""Files outside the working directory that a document names: where a container finds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rml_search.errors import OptionError
from rml_search.paths import Workspace
from rmldnn_contract.config import Configuration

#: Under this folder a container sees files of the machine outside the working directory.
OUTSIDE_ROOT = "/mnt/host"

_INPUT_PATHS = ("input_path", "target_path", "test_input_path", "test_target_path")


@dataclass(frozen=True)
class Mount:
    """A file or folder of this machine and its place in the container, where it can only be read."""

    source: Path
    target: str


def for_container(configuration: Configuration, workspace: Workspace) -> tuple[Configuration, tuple[Mount, ...]]:
    """The document as a container has to read it, and the mounts that make it true.

    Raises:
        OptionError: the document writes to a place outside the working directory.
    """
    document = configuration.model_dump(mode="json", exclude_unset=True)
    mounts: dict[str, Mount] = {}

    def relocate(section: dict[str, Any], key: str) -> None:
        value = section.get(key)
        if not isinstance(value, str):
            return
        place = workspace.inside(Path(value))
        if place is None:
            source = workspace.absolute(Path(value))
            place = OUTSIDE_ROOT + source.as_posix()
            mounts[place] = Mount(source, place)
        section[key] = place + ("/" if value.endswith("/") else "")

    network = document["neural_network"]
    relocate(network, "layers")
    relocate(network.get("checkpoints", {}), "load")
    for key in _INPUT_PATHS:
        relocate(network["data"], key)
    _check_outputs(network, workspace)
    return Configuration.model_validate(document), tuple(mounts.values())


def outside_container(path: Path, workspace: Workspace) -> Path:
    """The whole path of a file that a document names, be it one for a container or not."""
    if path.is_relative_to(OUTSIDE_ROOT):
        path = Path("/", path.relative_to(OUTSIDE_ROOT))
    return workspace.absolute(path)


def _check_outputs(network: dict[str, Any], workspace: Workspace) -> None:
    outputs = {
        "outfile": network.get("outfile"),
        "checkpoints.save": network.get("checkpoints", {}).get("save"),
        "data.test_output_path": network["data"].get("test_output_path"),
    }
    for key, value in outputs.items():
        if value is not None and workspace.inside(Path(value)) is None:
            raise OptionError(f"{key} is {value}, but a container can only write below {workspace.root}")
