"""What a person is told of an array while it is at work, and of how it has ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rml_search.errors import EngineFailedError
from rml_search.executor import following
from rml_search.executor.following import Progress, describe, failures, follow, last_words, tell_end
from rml_search.executor.slurm import ClusterSilentError, WorkerState
from rml_search.executor.submission import JobArray
from rml_search.results import TrialRecord, TrialState

RECORD = TrialRecord(0.5, "adam", 0.001, "bce", 3, 0, TrialState.COMPLETE, 12.3, None)
RUN = "submitit INFO (2026-01-01 00:00:00,000) - Starting with JobEnvironment(job_id=7)\n"
END = "submitit INFO (2026-01-01 00:00:01,000) - Exiting after successful completion\n"


@pytest.fixture
def array(workspace) -> JobArray:
    workspace.cluster_jobs.mkdir()
    return JobArray("7", 2, workspace.cluster_jobs)


def write_end(array: JobArray, index: int, log: str, code: int | None) -> None:
    from submitit.core.utils import cloudpickle_dump

    (array.folder / f"7_{index}_0_log.out").write_text(log)
    if code is not None:
        cloudpickle_dump(("success", code), array.folder / f"7_{index}_0_result.pkl")


def test_news_are_told_once():
    records = [RECORD]
    told: list[str] = []
    progress = Progress(lambda: records, 3, told.append)
    assert not progress.tell_news()
    assert not progress.tell_news()
    assert told == ["1 of 3 trials have run, best 0.500, trial 0"]
    records.append(replace(RECORD, number=1, max_acc=0.75))
    records.append(replace(RECORD, number=2, state=TrialState.FAILED, reason="interrupted", tried_again=True))
    records.append(replace(RECORD, number=3, max_acc=None, state=TrialState.FAILED, reason="the loss is NaN"))
    records.append(replace(RECORD, number=4, max_acc=0.6, state=TrialState.PRUNED))
    assert progress.tell_news()
    assert told[1:] == [
        "Trial 1 complete after 12 s: accuracy 0.750 in epoch 3, the best so far; 4 of 3",
        "Trial 2 interrupted, to be retried: interrupted",
        "Trial 3 failed after 12 s: the loss is NaN; 4 of 3",
        "Trial 4 pruned after 12 s: accuracy 0.600 in epoch 3 (best 0.750, trial 1); 4 of 3",
    ]


def test_workers_are_counted_by_what_they_do():
    running = [WorkerState(number, "RUNNING", "None") for number in range(2)]
    waiting = [WorkerState(number, "PENDING", "Resources") for number in range(2, 5)]
    assert describe([*running, *waiting], 6) == "2 running, 3 pending (Resources), 1 ended"
    assert describe([], 2) == "2 ended"


def answers_of(*answers: object):
    remaining = list(answers)

    def answer(_array: object) -> object:
        first = remaining.pop(0)
        if isinstance(first, Exception):
            raise first
        return first

    return answer


def test_a_silent_controller_is_asked_again(array, monkeypatch):
    running = [WorkerState(0, "RUNNING", "None")]
    silence = ClusterSilentError("squeue failed: no contact")
    monkeypatch.setattr(following, "workers_at_work", answers_of(running, silence, silence, running, []))
    monkeypatch.setattr(following, "_FIRST_PAUSE_SECONDS", 0.0)
    told: list[str] = []
    follow(array, Progress(list, 3, told.append), told.append)
    assert told == [
        "Job 7: 1 running, 1 ended",
        "squeue failed: no contact; retrying until it responds",
        "Job 7: 1 running, 1 ended",
        "Job 7: 2 ended",
    ]


def test_workers_that_wait_for_nothing_are_taken_out_of_the_queue(array, monkeypatch):
    running, waiting = WorkerState(0, "RUNNING", "None"), WorkerState(1, "PENDING", "Resources")
    cancelled: list[JobArray] = []
    monkeypatch.setattr(following, "workers_at_work", answers_of([running, waiting], [running], []))
    monkeypatch.setattr(following, "cancel_waiting", cancelled.append)
    monkeypatch.setattr(following, "_FIRST_PAUSE_SECONDS", 0.0)
    told: list[str] = []
    follow(array, Progress(lambda: [RECORD], 1, told.append), told.append)
    assert cancelled == [array]
    assert "All trials have run: cancelling 1 pending worker" in told


def test_a_worker_that_waited_after_its_time_limit_has_not_failed_when_all_trials_have_run(array):
    requeued = "submitit INFO (2026-01-01 00:00:01,000) - Requeued job 7_0 (2 remaining timeouts)\n"
    write_end(array, 0, f"{RUN}Stopped by SIGTERM; finished work is kept\n{requeued}", None)
    write_end(array, 1, f"{RUN}{END}", 0)
    told: list[str] = []
    tell_end(array, has_enough=True, is_fresh=False, show=told.append)
    assert told == []
    tell_end(array, has_enough=False, is_fresh=False, show=told.append)
    assert len(told) == 1
    assert told[0].startswith("Worker 0 failed: stopped by SIGTERM; finished work is kept (log: ")
    write_end(array, 0, f"{RUN}{requeued}{RUN}Error: no GPU here\n", None)  # its next run was ended, not its waiting
    tell_end(array, has_enough=True, is_fresh=False, show=told.append)
    assert told[1].startswith("Worker 0 failed: no GPU here")


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (f"{RUN}+---+\nError: no GPU here\n{END}", "no GPU here"),
        (f"{RUN}Stopped by SIGTERM; work is kept\nslurmstepd: error: killed\n", "stopped by SIGTERM; work is kept"),
        (f"{RUN}Stopped by SIGTERM; work is kept. Run it again\n", "stopped by SIGTERM; work is kept"),
        (f"{RUN}Stopped by SIGTERM\n{END}{RUN}slurmstepd: error: killed\n", "slurmstepd: error: killed"),
        (f"{RUN}Trial 0 (1 of 3)\n\n", "Trial 0 (1 of 3)"),
        (f"{RUN}{END}", None),
        ("bash: no such python\n", "bash: no such python"),
    ],
)
def test_last_words(tmp_path, log, words):
    path = tmp_path / "log"
    path.write_text(log)
    assert last_words(path) == words


def test_of_a_long_log_the_end_is_read(tmp_path):
    path = tmp_path / "log"
    path.write_text("Error: long ago\n" + "ä" * 200_000 + "\nthe end\n")
    assert last_words(path) == "the end"


def test_all_workers_failed_is_one_line_with_the_last_ones_exit_code(array):
    write_end(array, 0, f"{RUN}Error: no GPU here\n{END}", 69)
    write_end(array, 1, f"{RUN}Error: no network file\n{END}", 66)
    with pytest.raises(EngineFailedError) as caught:
        tell_end(array, has_enough=False, is_fresh=False, show=lambda _text: None)
    assert str(caught.value).startswith("all 2 workers failed, the last one: no network file (log: ")
    assert str(caught.value).endswith("slurm/7_1_0_log.out)")
    assert caught.value.exit_code == 66


@pytest.mark.parametrize(
    ("ends", "is_resumable"),
    [
        ([("Stopped by SIGTERM; finished work is kept\n", 143), ("Trial 0\n", -9)], True),
        ([("Stopped by SIGTERM; finished work is kept\n", None), ("", None)], True),
        ([("slurmstepd: error: *** JOB 7 ON node CANCELLED AT 2026-01-01T00:00:00 ***\n", None)] * 2, True),
        ([("Error: no GPU here\n", 69), ("Stopped by SIGTERM; finished work is kept\n", 143)], False),
        ([("ModuleNotFoundError: No module named 'submitit'\n", None)] * 2, False),
        ([("Trial 0\n", 139)] * 2, False),
    ],
)
def test_only_what_was_stopped_from_outside_is_said_to_go_on(array, ends, is_resumable):
    for index, (log, code) in enumerate(ends):
        write_end(array, index, f"{RUN}{log}", code)
    with pytest.raises(EngineFailedError) as caught:
        tell_end(array, has_enough=False, is_fresh=False, show=lambda _text: None)
    assert str(caught.value).endswith("Run the same command again to resume") == is_resumable


@pytest.mark.parametrize("exit_code", [143, -9, None])
@pytest.mark.parametrize(("is_fresh", "words"), [(False, "again to"), (True, "again without --fresh to")])
def test_who_has_cancelled_the_workers_is_told_how_to_resume(array, exit_code, is_fresh, words):
    for index in range(2):
        write_end(array, index, f"{RUN}Stopped by SIGTERM; finished work is kept. Run it\n", exit_code)
    with pytest.raises(EngineFailedError) as caught:
        tell_end(array, has_enough=False, is_fresh=is_fresh, show=lambda _text: None)
    assert str(caught.value).endswith(f"slurm/7_1_0_log.out). Run the same command {words} resume")


def test_one_failure_is_told_and_so_is_an_early_end(array):
    write_end(array, 0, f"{RUN}The search ended before 3 trials: time limit of 5 s reached (--timeout)\n{END}", 0)
    write_end(array, 1, RUN, -9)
    told: list[str] = []
    tell_end(array, has_enough=False, is_fresh=False, show=told.append)
    assert told[0].startswith("Worker 1 failed: it was stopped by SIGKILL (log: ")
    assert told[1:] == ["The search ended before 3 trials: time limit of 5 s reached (--timeout)"]


def test_a_worker_that_never_began_has_not_failed(array):
    write_end(array, 0, f"{RUN}{END}", 0)
    assert failures(array) == []


def test_an_exception_in_a_job_is_a_failure(array):
    from submitit.core.utils import cloudpickle_dump

    write_end(array, 0, f"{RUN}UncompletedJobError: Job not requeued because: timed-out too many times.\n", None)
    cloudpickle_dump(("error", "Traceback ..."), array.folder / "7_0_0_result.pkl")
    (failure,) = failures(array)
    assert failure.exit_code is None
    assert failure.words.endswith("timed-out too many times.")
