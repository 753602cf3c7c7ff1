"""The drawing of a network that ``debug`` asks for: a ``.dot`` file, which Graphviz turns into a picture.

``dot -Tsvg out_network.dot -o network.svg``; the language: https://graphviz.org/doc/info/lang.html
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rmldnn_torch.files import replacing
from rmldnn_torch.network import Network


def drawing_path(outfile: str | None) -> Path:
    """Where the drawing goes: ``runs/out.txt`` gives ``runs/out_network.dot``, no ``outfile`` ``network.dot``."""
    if outfile is None:
        return Path("network.dot")
    path = Path(outfile)
    return path.with_name(f"{path.stem}_network.dot")


def write_drawing(path: Path, network: Network) -> None:
    """Write the network to ``path``, whole or not at all. Raises ``OutputError``."""
    with replacing(path) as temporary:
        temporary.write_text(draw(network), encoding="utf-8")


def draw(network: Network) -> str:
    """The network as text in Graphviz's language.

    A node for each layer with its name, its class (and the activation that it carries) and the shape of its output
    without the batch, channels last, ``?`` for a size that depends on the image's. Frozen layers are dashed.
    """
    return "\n".join([f"digraph {_quoted(network.graph.name)} {{", *_statements(network), "}", ""])


def _statements(network: Network) -> Iterator[str]:
    yield "  node [shape=box]"
    shapes = network.layer_shapes()
    for spec in network.graph.layers:
        activation = spec.inline_activation
        what = spec.class_name if activation is None else f"{spec.class_name}, {activation}"
        channels, *spatial = shapes[spec.name]
        shape = " x ".join("?" if size is None else str(size) for size in (*spatial, channels))
        label = f"{spec.name}\n{what}\n{shape}"
        style = "" if spec.trainable else ", style=dashed"
        yield f"  {_quoted(spec.name)} [label={_quoted(label)}{style}]"
    for spec in network.graph.layers:
        for source in spec.inputs:
            yield f"  {_quoted(source)} -> {_quoted(spec.name)}"


def _quoted(text: str) -> str:
    """A text as Graphviz reads it back; without the characters that it does not take."""
    printable = "".join(character if character.isprintable() or character == "\n" else "?" for character in text)
    escaped = printable.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
