"""Who a driver is, how long it may be silent, where checkpoints are shared, and who may use a folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import optuna
import pytest

from rml_search.driver import is_gone, parse_driver, this_driver
from rml_search.errors import OptionError, WorkspaceInUseError, WriteError
from rml_search.folder import one_of_several_in
from rml_search.heartbeats import ENDED, Beat, Heartbeat, Watch
from rml_search.lock import only_search_in
from rml_shared.artifacts import PrefixedStore, open_model_store


def test_a_driver_knows_itself_by_its_name():
    driver = this_driver()
    assert parse_driver(driver.name) == driver
    assert driver.process == os.getpid()
    assert not is_gone(driver.name)
    assert parse_driver("") is None
    assert not is_gone("no driver at all")


def test_a_process_that_has_ended_is_gone_also_before_its_parent_notices_and_when_its_number_is_used_again():
    code = "from rml_search.driver import this_driver; print(this_driver().name, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        name = process.stdout.readline().decode().strip()
        assert not is_gone(name)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still in the table
        assert is_gone(name)
    assert is_gone(name)
    assert replace(this_driver(), started=1).is_gone
    assert not replace(parse_driver(name), kernel="another machine").is_gone


def test_silence_counts_only_while_somebody_listens():
    now = [1000.0]
    watch = Watch(interval=10.0, clock=lambda: now[0])
    quiet = Beat(1, 10.0)
    lost = []
    for loud in range(6):
        lost.append(watch.lost({"quiet": quiet, "loud": Beat(loud, 10.0)}))
        now[0] += 10.0
    assert lost == [set()] * 5 + [{"quiet"}]  # silent for 50 s, which is more than 4 times 10
    assert watch.lost({"quiet": Beat(2, 10.0)}) == set()
    now[0] += 100_000.0  # this machine was asleep
    assert watch.lost({"quiet": Beat(2, 10.0)}) == set()
    assert watch.lost({"quiet": Beat(ENDED, 10.0)}) == {"quiet"}


def test_a_heart_goes_on_beating_after_one_beat_was_not_heard():
    import threading

    heard, enough = [], threading.Event()

    def tell(number):
        heard.append(number)
        if number == 1:
            raise ConnectionError
        if number == 3:
            enough.set()

    heart = Heartbeat(tell, 0.01)
    heart.start()
    assert enough.wait(10)
    heart.stop()
    count = len(heard)
    assert heard[:3] == [1, 2, 3]
    assert not enough.wait(0) or len(heard) == count


def test_a_checkpoint_is_fetched_only_as_what_it_was(tmp_path):
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage)
    models = open_model_store(str(tmp_path / "shared" / "models"), storage)
    checkpoint = tmp_path / "model_checkpoint_2.pt"
    checkpoint.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    trial = study.ask()
    models.keep(trial, checkpoint)
    study.tell(trial, 0.5)
    frozen = study.get_trials()[0]
    target = tmp_path / "elsewhere" / "model_checkpoint_2.pt"
    assert models.fetch(frozen, target, digest)
    assert target.read_bytes() == b"weights"
    target.unlink()
    next((tmp_path / "shared" / "models").iterdir()).write_bytes(b"changed")
    assert not models.fetch(frozen, target, digest)
    assert list(target.parent.iterdir()) == []
    models.drop(frozen)
    models.drop(frozen)
    assert not models.fetch(frozen, target, digest)
    assert list((tmp_path / "shared" / "models").iterdir()) == []


def test_checkpoints_in_a_bucket(tmp_path, bucket):
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage)
    models = open_model_store(f"s3://{bucket.name}/of/ours/", storage)
    checkpoint = tmp_path / "model_checkpoint_2.pt"
    checkpoint.write_bytes(b"weights")
    trial = study.ask()
    models.keep(trial, checkpoint)
    study.tell(trial, 0.5)
    frozen = study.get_trials()[0]
    target = tmp_path / "elsewhere" / "model_checkpoint_2.pt"
    digest = hashlib.sha256(b"weights").hexdigest()
    assert models.fetch(frozen, target, digest)
    assert target.read_bytes() == b"weights"
    (key,) = bucket.keys()
    assert key.startswith("of/ours/")
    bucket.change(key, b"changed")
    assert not models.fetch(frozen, target, digest)
    models.drop(frozen)
    models.drop(frozen)
    assert bucket.keys() == []
    assert not models.fetch(frozen, target, digest)
    with pytest.raises(WriteError, match=r"cannot write to s3://missing: .*NoSuchBucket"):
        open_model_store("s3://missing", storage).keep(study.ask(), checkpoint)
    with pytest.raises(WriteError, match=r"cannot write to s3://missing: .*NoSuchBucket"):
        open_model_store("s3://missing", storage).check()
    models.check()
    assert bucket.keys() == []


def test_a_prefix_keeps_to_its_part_of_a_bucket(tmp_path):
    bucket = tmp_path / "bucket"
    (bucket / "ours").mkdir(parents=True)
    store = PrefixedStore(optuna.artifacts.FileSystemArtifactStore(bucket), "ours/")
    (tmp_path / "file").write_bytes(b"weights")
    with (tmp_path / "file").open("rb") as file:
        store.write("name", file)
    assert (bucket / "ours" / "name").read_bytes() == b"weights"
    with store.open_reader("name") as reader:
        assert reader.read() == b"weights"
    store.remove("name")
    assert list((bucket / "ours").iterdir()) == []


def test_places_that_share_nothing(tmp_path):
    storage = optuna.storages.InMemoryStorage()
    for place, message in (("gs://bucket", "takes a folder or s3://"), ("s3://", "give a bucket")):
        with pytest.raises(OptionError, match=message):
            open_model_store(place, storage)
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot make the folder"):
        open_model_store(str(tmp_path / "file" / "folder"), storage)
    models = open_model_store(str(tmp_path / "models"), storage)
    (tmp_path / "models").rmdir()
    (tmp_path / "file.pt").write_bytes(b"weights")
    with pytest.raises(WriteError, match=r"cannot write to .*models: No such file"):
        models.keep(optuna.create_study(storage=storage).ask(), tmp_path / "file.pt")


def test_a_folder_belongs_to_one_study_at_a_time(workspace):
    told: list[str] = []
    workspace.list_acc.write_text("[]")
    with one_of_several_in(workspace, "one", told.append):
        assert told[0].startswith("The results of an earlier search were moved to ")
        assert not workspace.list_acc.exists()
        workspace.list_acc.write_text("[1]")
        with one_of_several_in(workspace, "one", told.append):
            pass
        two = one_of_several_in(workspace, "two", told.append)
        with pytest.raises(WorkspaceInUseError, match="of another study"), two:
            pass
        with pytest.raises(WorkspaceInUseError), only_search_in(workspace):
            pass
    assert workspace.list_acc.read_text() == "[1]"
    one = one_of_several_in(workspace, "one", told.append)
    with only_search_in(workspace), pytest.raises(WorkspaceInUseError), one:
        pass
    assert len(told) == 1
