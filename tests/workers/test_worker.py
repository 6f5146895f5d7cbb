"""What RQ promises, of many jobs in one process: registries, results, retries, commands, ends."""

from __future__ import annotations

import asyncio
import io
import json
import time
from pathlib import Path

import pytest
import redis
from rq import Callback, Queue, Retry, Worker
from rq.command import (
    send_kill_horse_command,
    send_shutdown_command,
    send_stop_execution_command,
    send_stop_job_command,
)
from rq.job import Job, JobStatus
from rq.rate_limit import RateLimit
from rq.registry import FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry
from rq.results import Result
from rq.suspension import resume, suspend
from rq.timeouts import JobTimeoutException, TimerDeathPenalty
from rq.utils import now

from relay.records import DELIVERY_JOB
from relay.store import connect_async
from tests.harness import until
from tests.workers import jobs
from tests.workers.crew import QUICK, Crew
from workers.upkeep import Tempo
from workers.worker import RelayWorker
from workers.writing import GONE, Writer

ALLOWED = "rq:rl:limit:allowed"


async def nothing_is_left(store: redis.Redis) -> None:
    """Return once no key tells of a run that is over."""
    kinds = ("execution:*", "executions:*", "wip:*", "worker:*:executions")
    await until(lambda: not any(store.keys(f"rq:{kind}") for kind in kinds))


async def test_as_many_as_asked_for_run_at_once(crew: Crew) -> None:
    added = [crew.add(jobs.meet, 150) for _ in range(150)]
    crew.start(jobs_in_flight=150)

    for job in added:
        await crew.reaches(job, JobStatus.FINISHED)


async def test_and_no_more(crew: Crew) -> None:
    added = [crew.add(jobs.hold) for _ in range(5)]
    crew.start(jobs_in_flight=3)

    await until(lambda: len(jobs.order) == 3)
    assert len(crew.queue.started_job_registry) == 3
    assert crew.queue.job_ids == [job.id for job in added[3:]]
    jobs.gates["gate"].set()
    await until(lambda: len(crew.queue.finished_job_registry) == 5)
    assert jobs.order == [job.id for job in added]


async def test_registries_and_executions_tell_the_truth(crew: Crew, store: redis.Redis) -> None:
    worker = crew.start()
    await until(lambda: Worker.all(store) and Worker.all(store)[0].get_state() == "idle")
    job, other = crew.add(jobs.hold, result_ttl=77), crew.add(jobs.hold, "other")
    await until(lambda: len(jobs.order) == 2)

    assert job.id in crew.queue.started_job_registry
    job.refresh()  # type: ignore[no-untyped-call]
    assert (job.get_status(), job.worker_name) == (JobStatus.STARTED, worker.name)
    assert job.started_at is not None
    [seen] = Worker.all(queue=crew.queue)
    assert {execution.job_id for execution in seen.get_current_executions()} == {job.id, other.id}
    assert (seen.get_state(), seen.pid) == ("busy", worker.pid)
    [execution] = job.get_executions()
    assert execution.worker_name == worker.name
    assert 0 < store.ttl(execution.key) <= QUICK.lease

    jobs.gates["gate"].set()
    await crew.reaches(job, JobStatus.FINISHED)
    assert job.id in FinishedJobRegistry("deploy-relay", connection=store)
    assert job.id not in crew.queue.started_job_registry
    assert [found.job_id for found in Worker.all(store)[0].get_current_executions()] == [other.id]
    result = job.latest_result()
    assert result is not None
    assert (result.return_value, result.type) == (job.id, Result.Type.SUCCESSFUL)
    assert (result.worker_name, result.execution_id) == (worker.name, execution.id)
    assert 0 < store.ttl(f"rq:results:{job.id}") <= 77
    assert 0 < store.ttl(job.key) <= 77
    jobs.gates["other"].set()
    await crew.reaches(other, JobStatus.FINISHED)
    await until(lambda: Worker.all(store)[0].get_state() == "idle")
    await nothing_is_left(store)
    assert Worker.all(store)[0].successful_job_count == 2
    assert Worker.all(store)[0].total_working_time > 0


async def test_failure_is_kept_with_its_reason(crew: Crew, store: redis.Redis) -> None:
    crew.start()

    job = crew.add(jobs.fail, failure_ttl=88)

    await crew.reaches(job, JobStatus.FAILED)
    assert job.id in FailedJobRegistry("deploy-relay", connection=store)
    result = job.latest_result()
    assert result is not None
    assert result.type == Result.Type.FAILED
    assert "ValueError: as asked" in str(result.exc_string)
    assert 0 < store.ttl(job.key) <= 88
    assert Worker.all(store)[0].failed_job_count == 1
    await nothing_is_left(store)


@pytest.mark.parametrize("function", [jobs.forever, jobs.plainly_forever])
async def test_timeout_ends_a_job(crew: Crew, function: object) -> None:
    # RQ's own use of it, as when it cleans up a registry, changes the class for the whole process.
    TimerDeathPenalty(60, JobTimeoutException)  # type: ignore[no-untyped-call]
    crew.start()

    job = crew.add(function, job_timeout=1)

    await crew.reaches(job, JobStatus.FAILED)
    result = job.latest_result()
    assert result is not None
    text = "JobTimeoutException: Task exceeded maximum timeout value (1 seconds)"
    assert text in str(result.exc_string)


async def test_returned_retry_is_scheduled_and_runs_again(crew: Crew, store: redis.Redis) -> None:
    crew.start()

    job = crew.add(jobs.again, 2, 2)

    await crew.reaches(job, JobStatus.SCHEDULED)
    assert job.id in ScheduledJobRegistry(  # type: ignore[no-untyped-call]
        "deploy-relay", connection=store
    )
    await crew.reaches(job, JobStatus.FINISHED)
    job.refresh()  # type: ignore[no-untyped-call]
    assert (job.number_of_retries, job.return_value()) == (1, 2)
    assert [result.type for result in job.results()] == [
        Result.Type.SUCCESSFUL,
        Result.Type.RETRIED,
    ]


async def test_returned_retries_run_out(crew: Crew, store: redis.Redis) -> None:
    crew.start()

    job = crew.add(jobs.again, 99, 0)

    await crew.reaches(job, JobStatus.FAILED)
    assert len(jobs.order) == 6
    assert job.results()[0].type == Result.Type.MAX_RETRIES_EXCEEDED
    assert job.id in FailedJobRegistry("deploy-relay", connection=store)


async def test_job_that_raises_is_retried_as_often_as_it_says(crew: Crew) -> None:
    crew.start()

    job = crew.add(jobs.fail, retry=Retry(max=2, interval=[0, 1]))

    await crew.reaches(job, JobStatus.FAILED)
    assert jobs.order == [job.id] * 3


async def test_heartbeats_keep_runs_and_worker_alive(crew: Crew, store: redis.Redis) -> None:
    worker = crew.start()
    job = crew.add(jobs.hold)
    await jobs.entered[job.id].wait()
    [execution] = job.get_executions()
    first = time.monotonic()

    await until(lambda: time.monotonic() - first > 1.5 * QUICK.lease)

    [still] = job.get_executions()
    assert still.id == execution.id
    assert still.last_heartbeat > execution.last_heartbeat
    assert (store.zscore("rq:wip:deploy-relay", execution.composite_key) or 0) > time.time()
    assert 0 < store.ttl(worker.key) <= QUICK.lease
    jobs.gates["gate"].set()
    await crew.reaches(job, JobStatus.FINISHED)
    assert jobs.order == [job.id]


async def test_current_job_is_right_in_each_of_many(crew: Crew) -> None:
    added = [crew.add(jobs.hold) for _ in range(20)]
    crew.start()
    await until(lambda: len(jobs.order) == 20)

    jobs.gates["gate"].set()

    for job in added:
        await crew.reaches(job, JobStatus.FINISHED)
        assert job.return_value() == job.id


async def test_plain_function_runs_beside_the_loop(crew: Crew) -> None:
    crew.start()

    job = crew.add(jobs.plainly, "word")

    await crew.reaches(job, JobStatus.FINISHED)
    assert job.return_value() == ("word", job.id, False)


async def test_dependents_callbacks_and_results_not_kept(crew: Crew, store: redis.Redis) -> None:
    crew.start()
    first = crew.add(jobs.hold)
    second = crew.add(
        jobs.note, depends_on=first, on_success=Callback(jobs.on_success), result_ttl=0
    )
    await jobs.entered[first.id].wait()
    assert jobs.order == [first.id]

    jobs.gates["gate"].set()

    await until(lambda: len(jobs.order) == 3)
    assert jobs.order[1:] == [second.id, f"{second.id} gave {second.id}"]
    await until(lambda: not Job.exists(second.id, store))
    await nothing_is_left(store)


async def test_stop_command_stops_the_right_one(crew: Crew, store: redis.Redis) -> None:
    crew.start()
    added = [crew.add(jobs.hold) for _ in range(3)]
    await until(lambda: len(jobs.order) == 3)

    send_stop_job_command(store, added[1].id)
    await crew.reaches(added[1], JobStatus.STOPPED)
    [execution] = added[2].get_executions()
    send_stop_execution_command(store, added[2].id, execution.id)
    await crew.reaches(added[2], JobStatus.STOPPED)

    assert added[1].id in FailedJobRegistry("deploy-relay", connection=store)
    assert added[0].get_status() == JobStatus.STARTED
    jobs.gates["gate"].set()
    await crew.reaches(added[0], JobStatus.FINISHED)
    await nothing_is_left(store)


async def test_shutdown_command_lets_jobs_end(crew: Crew, store: redis.Redis) -> None:
    worker = crew.start()
    job = crew.add(jobs.hold)
    await jobs.entered[job.id].wait()

    send_kill_horse_command(store, worker.name)
    send_shutdown_command(store, worker.name)
    # Commands come one after the other; a job queued after the second must wait.
    await until(lambda: worker._stopping.is_set())
    later = crew.add(jobs.note)
    jobs.gates["gate"].set()

    await crew.ended(worker)
    assert job.get_status() == JobStatus.FINISHED
    assert later.get_status() == JobStatus.QUEUED
    assert Worker.all(store) == []
    await nothing_is_left(store)


async def test_what_outlasts_the_grace_goes_back_to_the_front(
    crew: Crew, store: redis.Redis
) -> None:
    worker = crew.start(shutdown_grace=0.1)
    job = crew.add(jobs.hold, rate_limit=RateLimit("limit", 1))
    await jobs.entered[job.id].wait()
    worker.shut_down()
    later = crew.add(jobs.note)

    await crew.ended(worker)

    assert crew.queue.job_ids == [job.id, later.id]
    assert job.get_status() == JobStatus.QUEUED
    assert store.zrange(ALLOWED, 0, -1) == [job.id.encode()]
    await nothing_is_left(store)
    jobs.gates["gate"].set()
    crew.start()
    await crew.reaches(job, JobStatus.FINISHED)
    assert store.zcard(ALLOWED) == 0


async def test_heartbeat_on_its_way_leaves_a_job_alone_that_was_put_back(
    crew: Crew, store: redis.Redis, server_socket: Path
) -> None:
    worker = crew.start(shutdown_grace=0, tempo=Tempo(heartbeat=600))
    job = crew.add(jobs.hold)
    await jobs.entered[job.id].wait()
    [flight] = worker._flights
    connection = connect_async(f"unix://{server_socket}", timeout=2)
    writer = Writer(worker, crew.queue, connection)
    part = writer.part(job, flight.execution, lambda pipe: job.heartbeat(now(), 60, pipe))
    worker.shut_down()
    await crew.ended(worker)

    written = await writer.write([part], {})

    assert list(written.answers) == [GONE]
    assert store.hget(job.key, "last_heartbeat") is None
    assert store.hget(job.key, "status") == b"queued"
    await connection.aclose()


async def test_run_that_is_heard_of_again_is_not_taken_away(
    crew: Crew, store: redis.Redis, server_socket: Path
) -> None:
    worker = crew.start(tempo=Tempo(heartbeat=600))
    job = crew.add(jobs.hold)
    await jobs.entered[job.id].wait()
    [flight] = worker._flights
    connection = connect_async(f"unix://{server_socket}", timeout=2)
    writer = Writer(worker, crew.queue, connection)
    due = int(
        store.zscore(crew.queue.started_job_registry.key, flight.execution.composite_key) or 0
    )
    part = writer.part(job, flight.execution, lambda pipe: pipe.hset(job.key, "status", "failed"))

    # Later by its clock, or earlier by one that was set back.
    for heard in (due - 1, due + 1):
        written = await writer.write([part._replace(still_due=heard)], {})
        assert list(written.answers) == [GONE]
    assert job.get_status() == JobStatus.STARTED
    written = await writer.write([part._replace(still_due=due)], {})
    assert list(written.answers) == [0]
    assert job.get_status() == JobStatus.FAILED
    await connection.aclose()


async def test_the_audit_tells_of_ends_that_jobs_do_not_see(
    crew: Crew, store: redis.Redis, audited: io.BytesIO
) -> None:
    worker = crew.start()
    kept, stopped = crew.add(jobs.hold), crew.add(jobs.hold)
    slow = crew.add(jobs.forever, job_timeout=1)
    broken = crew.add(DELIVERY_JOB, "no delivery", retry=Retry(max=1, interval=60))
    await until(lambda: len(jobs.order) == 2)
    send_stop_job_command(store, stopped.id)
    await crew.reaches(stopped, JobStatus.STOPPED)
    await crew.reaches(slow, JobStatus.FAILED)
    await crew.reaches(broken, JobStatus.SCHEDULED)
    worker.shut_down()
    worker.shut_down()
    await crew.ended(worker)

    told = {line["event"]: line for line in map(json.loads, audited.getvalue().splitlines())}
    assert told["job.stopped"]["job"] == stopped.id
    assert told["job.failed"]["job"] == slow.id
    assert told["job.failed"]["reason"] == "it took longer than 1 s"
    assert told["job.put_back"]["job"] == kept.id
    assert told["delivery.retry_scheduled"]["delivery"] == broken.id
    assert told["delivery.retry_scheduled"]["seconds"] == 60


async def test_second_signal_ends_the_grace(crew: Crew) -> None:
    worker = crew.start(shutdown_grace=600)
    job = crew.add(jobs.hold)
    await jobs.entered[job.id].wait()

    worker.shut_down()
    worker.shut_down()

    await crew.ended(worker)
    assert job.get_status() == JobStatus.QUEUED


async def test_abandoned_job_runs_again_and_late_outcome_is_not_kept(
    crew: Crew, store: redis.Redis, audited: io.BytesIO
) -> None:
    silent = crew.start(tempo=Tempo(heartbeat=600, lease=2, maintenance=600, schedule=600))
    job = crew.add(jobs.hold, retry=Retry(max=1), rate_limit=RateLimit("limit", 1))
    await jobs.entered[job.id].wait()
    [execution] = job.get_executions()
    crew.start()

    await until(lambda: jobs.order == [job.id, job.id])
    await until(lambda: b"job.abandoned" in audited.getvalue())
    [rescued] = [other for other in job.get_executions() if other != execution]
    silent.shut_down()
    jobs.gates["gate"].set()

    await crew.ended(silent)
    await crew.reaches(job, JobStatus.FINISHED)
    assert [result.execution_id for result in job.results()] == [rescued.id]
    assert store.zcard(ALLOWED) == 0


@pytest.mark.parametrize("how", ["returns", "raises", "retries", "runs on", "is stopped"])
async def test_slot_is_released_however_a_job_ends(
    crew: Crew, store: redis.Redis, how: str
) -> None:
    # Without maintenance, which would find a slot that was forgotten.
    crew.start(tempo=Tempo(heartbeat=0.2, maintenance=600, schedule=0.1))
    limit = RateLimit("limit", 1)
    ways: dict[str, Job] = {}
    if how == "returns":
        ways[how] = crew.add(jobs.hold, rate_limit=limit)
    elif how == "raises":
        ways[how] = crew.add(jobs.fail, rate_limit=limit)
    elif how == "retries":
        ways[how] = crew.add(jobs.again, 2, 600, rate_limit=limit)
    else:
        ways[how] = crew.add(
            jobs.forever, rate_limit=limit, job_timeout=1 if how == "runs on" else 99
        )
    after = crew.add(jobs.note, rate_limit=limit)
    if how == "is stopped":
        await jobs.entered[ways[how].id].wait()
        assert after.get_status() == JobStatus.RATE_LIMITED
        send_stop_job_command(store, ways[how].id)
    jobs.gates["gate"].set()

    await crew.reaches(after, JobStatus.FINISHED)

    assert jobs.order[-1] == after.id
    await until(lambda: store.zcard(ALLOWED) == 0)


async def test_bound_keeps_jobs_out_of_the_queue_and_in_order(
    crew: Crew, store: redis.Redis
) -> None:
    crew.start()
    limit = RateLimit("limit", 1)
    # RQ itself tells jobs that come within one second apart by their ids.
    held = [
        crew.add(jobs.hold, rate_limit=limit, at_front=True, job_id=f"{number}")
        for number in range(4)
    ]
    await until(lambda: len(jobs.order) == 1)

    free = crew.add(jobs.note)

    await crew.reaches(free, JobStatus.FINISHED)
    assert len(crew.queue) == 0
    jobs.gates["gate"].set()
    await until(lambda: len(jobs.order) == 5)
    assert jobs.order == [held[0].id, free.id, *(job.id for job in held[1:])]


async def test_front_of_the_queue_is_served_in_order_of_arrival(crew: Crew) -> None:
    behind = crew.add(jobs.note)
    limit = RateLimit("limit", 100)
    front = [crew.add(jobs.note, rate_limit=limit, at_front=True) for _ in range(9)]
    assert crew.queue.job_ids == [*(job.id for job in reversed(front)), behind.id]

    crew.start(jobs_in_flight=2)

    await until(lambda: len(jobs.order) == 10)
    assert jobs.order == [*(job.id for job in front), behind.id]


async def test_front_is_searched_only_so_deep(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.taking.DEEPEST", 4)
    behind = crew.add(jobs.note)
    limit = RateLimit("limit", 100)
    front = [crew.add(jobs.note, rate_limit=limit, at_front=True) for _ in range(9)]

    crew.start(jobs_in_flight=2)

    await until(lambda: len(jobs.order) == 10)
    assert jobs.order[:2] == [front[5].id, front[6].id]
    assert jobs.order[-1] == behind.id


async def test_jobs_that_come_together_start_in_order(crew: Crew) -> None:
    crew.start()
    await crew.reaches(crew.add(jobs.note), JobStatus.FINISHED)

    added = crew.queue.enqueue_many([Queue.prepare_data(jobs.note) for _ in range(5)])

    await until(lambda: len(jobs.order) == 6)
    assert jobs.order[1:] == [job.id for job in added]


async def test_worker_is_idle_as_soon_as_nothing_runs(crew: Crew, store: redis.Redis) -> None:
    worker = crew.start(tempo=Tempo(heartbeat=600, schedule=600, maintenance=600))
    await until(lambda: store.hget(worker.key, "state") == b"idle")
    job = crew.add(jobs.hold)
    await jobs.entered[job.id].wait()
    assert store.hget(worker.key, "state") == b"busy"

    jobs.gates["gate"].set()

    await until(lambda: store.hget(worker.key, "state") == b"idle")


async def test_suspended_worker_takes_nothing(crew: Crew, store: redis.Redis) -> None:
    suspend(store)
    crew.start()
    job = crew.add(jobs.note)

    await until(lambda: Worker.all(store) and Worker.all(store)[0].get_state() == "suspended")
    assert job.get_status() == JobStatus.QUEUED
    resume(store)

    await crew.reaches(job, JobStatus.FINISHED)


async def test_id_without_a_job_is_dropped_and_an_unreadable_job_fails(
    crew: Crew, store: redis.Redis, audited: io.BytesIO
) -> None:
    crew.queue.push_job_id("gone")
    unreadable = crew.add(jobs.note)
    store.hset(unreadable.key, "created_at", "no date")
    store.hset(unreadable.key, "rate_limit_key", "limit")
    store.zadd(ALLOWED, {unreadable.id: 1})
    job = crew.add(jobs.note)

    crew.start(jobs_in_flight=1)

    await crew.reaches(job, JobStatus.FINISHED)
    assert jobs.order == [job.id]
    assert len(crew.queue) == 0
    assert not Job.exists("gone", store)
    await nothing_is_left(store)
    assert store.hget(unreadable.key, "status") == b"failed"
    assert unreadable.id in FailedJobRegistry("deploy-relay", connection=store).get_job_ids()
    assert store.zcard(ALLOWED) == 0
    assert b"job.failed" in audited.getvalue()


async def test_job_of_a_stock_worker_that_died_while_taking_is_found(
    crew: Crew, store: redis.Redis
) -> None:
    job = crew.add(jobs.note, retry=Retry(max=1))
    waiting = crew.queue.intermediate_queue
    store.lmove(crew.queue.key, waiting.key, "LEFT", "RIGHT")
    # RQ gives a job a minute from the moment it has first seen it there.
    store.set(waiting.get_first_seen_key(job.id), time.time() - 61)

    crew.start()

    await crew.reaches(job, JobStatus.FINISHED)


async def test_two_workers_share_a_queue(crew: Crew) -> None:
    first, second = crew.start(jobs_in_flight=1), crew.start(jobs_in_flight=1)
    added = [crew.add(jobs.hold) for _ in range(2)]
    await until(lambda: len(jobs.order) == 2)

    assert {Job.fetch(job.id, crew.store).worker_name for job in added} == {
        first.name,
        second.name,
    }


def test_worker_of_another_process_can_be_looked_up(store: redis.Redis) -> None:
    worker = RelayWorker([Queue("q", connection=store)], connection=store)
    worker.register_birth()  # type: ignore[no-untyped-call]

    [found] = RelayWorker.all(store)

    assert found.name == worker.name


async def test_wait_for_idle_is_over_at_once(crew: Crew, store: redis.Redis) -> None:
    """A look every few seconds would do for everything else here."""
    worker = crew.start()
    await until(lambda: store.hget(worker.key, "state") == b"idle")
    async with asyncio.timeout(3):
        for _ in range(5):
            job = crew.add(jobs.hold)
            await jobs.entered[job.id].wait()
