"""Decoded samples on their way from one run to the next."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rmldnn_torch import shared_samples
from rmldnn_torch.shared_samples import MAX_KEPT, SampleStore, decoded_once

CPU = torch.device("cpu")
SAMPLES = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4, 1)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The worker's end of the connection; this process is a run at the other."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        monkeypatch.setattr(shared_samples, "store", SampleStore(theirs))
        yield ours


def take_over(worker: socket.socket) -> str:
    """What the worker does with a message, so that the next run finds the samples; gives their key."""
    message, descriptors, _, _ = socket.recv_fds(worker, 4096, 1)
    content = json.loads(message)
    shared_samples.store.keep(content["key"], content["shape"], descriptors[0])
    return str(content["key"])


def test_the_next_run_gets_what_the_first_has_decoded(worker: socket.socket, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    assert torch.equal(decoded_once([path], "gray", SAMPLES.clone, CPU), SAMPLES)  # type: ignore[arg-type]
    take_over(worker)
    kept = decoded_once([path], "gray", lambda: pytest.fail("decoded again"), CPU)
    assert isinstance(kept, torch.Tensor)
    assert torch.equal(kept, SAMPLES)
    kept.zero_()
    again = decoded_once([path], "gray", lambda: pytest.fail("decoded again"), CPU)
    assert isinstance(again, torch.Tensor)
    assert torch.equal(again, SAMPLES), "a run has changed what the next one sees"


@pytest.mark.usefixtures("worker")
def test_another_recipe_or_a_changed_file_is_decoded_anew(worker: socket.socket, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    keys = []
    for recipe, content in (("gray", b"1"), ("colours", b"1"), ("gray", b"another")):
        path.write_bytes(content)
        decoded_once([path], recipe, lambda: SAMPLES, CPU)
        keys.append(take_over(worker))
    assert len(set(keys)) == 3


def test_a_file_whose_time_was_set_back_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    before, key = path.stat(), shared_samples.key_of([path], "")
    path.write_bytes(b"2")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)
    assert shared_samples.key_of([path], "") != key


def test_images_of_several_sizes_and_other_numbers_are_not_handed_over(worker: socket.socket, tmp_path: Path) -> None:
    several = [SAMPLES[0], SAMPLES[1, :2]]
    assert decoded_once([tmp_path], "several", lambda: several, CPU) is several
    values = SAMPLES.float()
    assert decoded_once([tmp_path], "values", lambda: values, CPU) is values
    worker.setblocking(False)
    with pytest.raises(BlockingIOError):
        worker.recv(1)


def test_samples_that_memory_would_not_hold_twice_are_not_handed_over(
    worker: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 bytes may be kept of 48 that are free; of 70 more than the 24 that are kept then, 23 more may."""
    worker.setblocking(False)
    for number, (free, is_kept) in enumerate([(47, False), (48, True), (70, False), (72, True)]):
        monkeypatch.setattr(shared_samples, "available_memory", lambda free=free: free)
        assert decoded_once([tmp_path], str(number), lambda: SAMPLES, CPU) is SAMPLES
        if is_kept:
            take_over(worker)
        else:
            with pytest.raises(BlockingIOError):
                worker.recv(1)


@pytest.mark.usefixtures("worker")
def test_what_two_parts_of_a_run_hand_over_is_kept_once() -> None:
    descriptors = [os.memfd_create("samples") for _ in range(2)]
    for descriptor in descriptors:
        shared_samples.store.keep("a", [1], descriptor)
    os.fstat(descriptors[0])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptors[1])
    os.close(descriptors[0])


def test_the_oldest_go_when_there_are_too_many() -> None:
    store = SampleStore()
    descriptors = []
    for number in range(MAX_KEPT + 1):
        descriptors.append(os.memfd_create("samples"))
        os.write(descriptors[-1], bytes([number]))
        store.keep(str(number), [1], descriptors[-1])
    assert store.find("0") is None
    assert store.find("1") == torch.tensor([1], dtype=torch.uint8)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptors[0])
    for descriptor in descriptors[1:]:
        os.close(descriptor)


def test_runs_in_turn_find_samples_of_any_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shared_samples, "store", SampleStore(is_of_the_worker=True))
    several = [SAMPLES[0], SAMPLES[1, :2]]
    for number in range(MAX_KEPT):
        assert decoded_once([tmp_path], str(number), lambda: several, CPU) is several
    assert decoded_once([tmp_path], "0", lambda: pytest.fail("decoded again"), CPU) is several
    decoded_once([tmp_path], "one more", lambda: SAMPLES, CPU)
    assert decoded_once([tmp_path], "0", lambda: SAMPLES, CPU) is SAMPLES


def test_runs_in_turn_keep_no_more_than_they_leave_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of samples of 24 bytes each two at 71 bytes that are free without them, the later ones; none at 23."""
    store = SampleStore(is_of_the_worker=True)
    monkeypatch.setattr(shared_samples, "store", store)
    monkeypatch.setattr(shared_samples, "available_memory", lambda: 71)
    keys = [str(number) for number in range(3)]
    for key in keys:
        assert decoded_once([tmp_path], key, lambda: [SAMPLES[:1], SAMPLES[1:]], CPU)
    decode = [lambda: pytest.fail("decoded again"), SAMPLES.clone]
    assert isinstance(decoded_once([tmp_path], "2", decode[0], CPU), list)
    assert isinstance(decoded_once([tmp_path], "1", decode[0], CPU), list)
    assert torch.is_tensor(decoded_once([tmp_path], "0", decode[1], CPU))
    monkeypatch.setattr(shared_samples, "available_memory", lambda: 23)
    assert decoded_once([tmp_path], "another", lambda: SAMPLES, CPU) is SAMPLES
    assert torch.is_tensor(decoded_once([tmp_path], "2", decode[1], CPU))


def test_a_process_that_has_no_worker_keeps_nothing() -> None:
    assert decoded_once([Path("missing")], "gray", lambda: SAMPLES, CPU) is SAMPLES


# --- on the worker's device, of which torch's meta device is a stand-in: it tells where samples are, not what they are


META = torch.device("meta")


def on_device(store: SampleStore) -> list[str]:
    return sorted(key for key, _ in store._on_device)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> SampleStore:
    store = SampleStore(is_of_the_worker=True)
    monkeypatch.setattr(shared_samples, "store", store)
    monkeypatch.setattr(shared_samples, "key_of", lambda paths, recipe: recipe)
    return store


def ask(recipe: str) -> object:
    return decoded_once([], recipe, SAMPLES.clone, META)


def test_samples_stay_on_the_device_for_the_next_run(in_process: SampleStore) -> None:
    in_process.begin_run()
    first = [ask("inputs"), ask("targets")]
    in_process.free_the_device()
    in_process.begin_run()
    assert all(again is before for again, before in zip([ask("inputs"), ask("targets")], first, strict=True))
    several = decoded_once([], "several", lambda: [SAMPLES[0], SAMPLES[1, :2]], META)
    assert [sample.device for sample in several] == [META] * 2
    assert decoded_once([], "several", lambda: pytest.fail("decoded again"), META) is several


def test_what_a_run_does_not_ask_for_leaves_the_device_before_others_come(in_process: SampleStore) -> None:
    in_process.begin_run()
    ask("training")
    ask("test")
    in_process.begin_run()
    ask("test")
    ask("larger")
    assert on_device(in_process) == ["larger", "test"]
    in_process.begin_run()
    in_process.free_the_device()
    assert on_device(in_process) == []


def test_elsewhere_nothing_is_kept_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    store = SampleStore()
    monkeypatch.setattr(shared_samples, "store", store)
    assert ask("inputs") is not ask("inputs")
    store.is_of_the_worker = True
    assert decoded_once([], "inputs", lambda: SAMPLES, CPU) is SAMPLES
    assert decoded_once([], None, SAMPLES.clone, META) is not None  # type: ignore[arg-type]
    assert on_device(store) == []
