"""A published data set as the zip file that it comes in, whole, hostile or damaged."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from rml_search import labelled_images
from rml_search.errors import DataSetError

from .test_prepare import noise, run, write_source


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path)


def pack(source: Path, archive: Path, prefix: str = "") -> None:
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(source.rglob("*.png")):
            packed.write(path, prefix + str(path.relative_to(source.parent)))


def test_zip_file_gives_what_its_folder_gives(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "archive.zip", prefix="downloads/2024/")
    with zipfile.ZipFile(tmp_path / "archive.zip", "a") as packed:
        packed.writestr("__MACOSX/downloads/2024/._benign (1).png", b"resource fork")
        packed.writestr("downloads/readme.txt", b"hello")
    assert run(source, tmp_path / "a") == run(tmp_path / "archive.zip", tmp_path / "b")
    contents = [
        {str(path.relative_to(tmp_path / out)): path.read_bytes() for path in (tmp_path / out).rglob("*.*")}
        for out in ("a", "b")
    ]
    assert contents[0] == contents[1]


def test_names_in_a_zip_file_lead_nowhere(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "archive.zip")
    data = io.BytesIO()
    Image.fromarray(noise(77)).save(data, format="PNG")
    with zipfile.ZipFile(tmp_path / "archive.zip", "a") as packed:
        for name in ("../../normal/evil.png", "/normal/root.png"):
            packed.writestr(name, data.getvalue())
    inside = tmp_path / "inside"
    inside.mkdir()
    run(tmp_path / "archive.zip", inside / "data")
    assert {path.name for path in tmp_path.iterdir()} == {"Dataset_BUSI_with_GT", "archive.zip", "inside"}
    assert [path.name for path in inside.iterdir()] == ["data"]


def test_zip_bomb_is_refused(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(source, tmp_path / "archive.zip")
    monkeypatch.setattr(labelled_images, "_MAX_BYTES", 100)
    with pytest.raises(DataSetError, match=r"benign \(1\).png unpacks to \d+ bytes, which is not an image"):
        run(tmp_path / "archive.zip", tmp_path / "data")


def encrypt(archive: bytes) -> bytes:
    """Set the flag for encryption in the directory of the archive."""
    at = archive.index(b"PK\x01\x02") + 8
    return archive[:at] + bytes([archive[at] | 1]) + archive[at + 1 :]


def corrupt(archive: bytes) -> bytes:
    """Change a byte in the middle of the first picture: its checksum no longer fits."""
    at = archive.index(b"IDAT") + 50
    return archive[:at] + bytes([archive[at] ^ 255]) + archive[at + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (encrypt, r"cannot be unpacked: .*encrypted"),
        (corrupt, r"cannot be unpacked: Bad CRC-32"),
        (lambda archive: archive[:5000], r"neither a folder nor a readable zip file"),
    ],
)
def test_damaged_zip_file(source: Path, tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    pack(source, tmp_path / "archive.zip")
    (tmp_path / "archive.zip").write_bytes(damage((tmp_path / "archive.zip").read_bytes()))
    with pytest.raises(DataSetError, match=message):
        run(tmp_path / "archive.zip", tmp_path / "data")
