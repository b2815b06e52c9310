"""The store of jobs: SQLite (WAL) in a file, or PostgreSQL by URL. Blocking: call it from threads."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sql

from vermilion.errors import OptionsError
from vermilion.server.backend import State
from vermilion.server.jobs.tables import LIGHT, deliveries, jobs, metadata, segmentations, segments

if TYPE_CHECKING:
    from filelock import BaseFileLock

FINAL = ("succeeded", "failed", "cancelled")
STARTS = 50
"""starts of a job without a new segment after which it is given up: it seems to end the server"""


@dataclass(frozen=True)
class JobRow:
    """A job, without its transcript."""

    id: str
    client: str
    """key of whom it belongs to; "" = everybody, where no keys are used"""
    name: str
    """what the recording is called"""
    kind: str
    """"upload", "path" or "url" """
    source: str
    """path or URL"""
    bytes: int = 0
    status: str = "queued"
    stage: str = "queued"
    created_at: float = field(default_factory=time.time)
    started_at: float | None = None
    finished_at: float | None = None
    available_at: float = 0.0
    """not before this time"""
    language: str | None = None
    channels: str = "mix"
    webhook: str | None = None
    same: str | None = None
    """the client's own key of the job: the same key is the same job"""
    duration: float | None = None
    progress: float = 0.0
    segments_done: int = 0
    segments_total: int | None = None
    error: str | None = None
    """JSON of OpenAI's error fields"""
    owner: str | None = None
    """claim of the server that works at it"""
    lease_until: float | None = None
    starts: int = 0

    @property
    def is_final(self) -> bool:
        """Nothing will change any more."""
        return self.status in FINAL

    def public(self, position: int | None = None) -> dict[str, Any]:
        """What clients see."""
        return {
            "id": self.id,
            "object": "transcription.job",
            "status": self.status,
            "created_at": round(self.created_at, 3),
            "started_at": self.started_at and round(self.started_at, 3),
            "finished_at": self.finished_at and round(self.finished_at, 3),
            "file": {"name": self.name, "bytes": self.bytes},
            "duration": self.duration,
            "progress": round(self.progress, 4),
            "stage": self.stage,
            "segments_done": self.segments_done,
            "segments_total": self.segments_total,
            "language": self.language,
            "error": json.loads(self.error) if self.error else None,
            "position": position,
        }


def new_id() -> str:
    """A name that nobody can guess."""
    return f"job_{secrets.token_hex(16)}"


def delivery_body(row: JobRow) -> str:
    """What a webhook is told: never any text of the recording."""
    return json.dumps({"type": f"job.{row.status}", "timestamp": row.finished_at, "data": row.public()})


class JobStore:
    """All jobs; every method is one transaction."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        """Take the database's URL; `open` connects."""
        self.url, self.clock = _driver(url), clock
        self._writing = threading.Lock()
        self._file: BaseFileLock | None = None

    @property
    def is_shared(self) -> bool:
        """Several servers may work with it."""
        return not self.url.startswith("sqlite")

    def open(self) -> None:
        """Connect, and make the tables.

        Raises:
            OptionsError: the database cannot be reached, or another server has the file.
        """
        if not self.is_shared:
            self._lock()
            self._make_private()
        try:
            self._engine = sql.create_engine(self.url, pool_pre_ping=self.is_shared)
            if not self.is_shared:
                sql.event.listen(self._engine, "connect", _pragmas)
            metadata.create_all(self._engine)
        except (sql.exc.SQLAlchemyError, ImportError) as error:
            self._unlock()
            reason = str(getattr(error, "orig", error)).strip().partition("\n")[0]
            raise OptionsError(f"the job store cannot be opened: {reason}") from error

    def close(self) -> None:
        """Disconnect."""
        self._engine.dispose()
        self._unlock()

    def _lock(self) -> None:
        from filelock import FileLock, Timeout

        path = Path(self.url.removeprefix("sqlite:///"))
        self._file = FileLock(f"{path}.lock", mode=0o600, thread_local=False)
        try:
            self._file.acquire(timeout=0)
        except Timeout as error:
            raise OptionsError(
                f"another server works with {path}; give this one its own --data, or a PostgreSQL --database"
            ) from error

    def _make_private(self) -> None:
        """Transcripts are in the file, and in those that SQLite puts beside it with the same mode."""
        path = self.url.removeprefix("sqlite:///")
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(path + suffix).chmod(0o600)

    def _unlock(self) -> None:
        if self._file is not None:
            self._file.release()

    @contextmanager
    def _transaction(self) -> Iterator[sql.Connection]:
        with self._writing, self._engine.begin() as connection:
            yield connection

    # ---- clients

    def add(self, row: JobRow, most: int) -> JobRow | None:
        """Store a new job.

        Returns:
            The job; an older one if the client has named it before; None if `most` wait already.
        """
        with self._transaction() as connection:
            if row.same is not None:
                query = sql.select(*LIGHT).where(jobs.c.client == row.client, jobs.c.same == row.same)
                known = connection.execute(query).first()
                if known is not None:
                    return _row(known)
            waiting = sql.select(sql.func.count()).where(jobs.c.status == "queued")
            if connection.execute(waiting).scalar_one() >= most:
                return None
            connection.execute(jobs.insert().values(**asdict(row)))
        return row

    def get(self, id: str, client: str | None = None) -> JobRow | None:
        """A job, if it is this client's."""
        query = sql.select(*LIGHT).where(jobs.c.id == id)
        if client is not None:
            query = query.where(jobs.c.client == client)
        with self._engine.connect() as connection:
            found = connection.execute(query).first()
        return _row(found) if found is not None else None

    def result(self, id: str) -> str | None:
        """The transcript of a job, as JSON."""
        with self._engine.connect() as connection:
            found = connection.execute(sql.select(jobs.c.result).where(jobs.c.id == id)).scalar_one_or_none()
        return cast("str | None", found)

    def newest(self, client: str, limit: int, after: str | None, status: str | None) -> list[JobRow]:
        """A client's jobs, the newest first, from behind the job `after`.

        Raises:
            OptionsError: there is no such job.
        """
        query = sql.select(*LIGHT).where(jobs.c.client == client)
        if status is not None:
            query = query.where(jobs.c.status == status)
        with self._engine.connect() as connection:
            if after is not None:
                last = connection.execute(sql.select(jobs.c.created_at).where(jobs.c.id == after)).scalar()
                if last is None:
                    raise OptionsError("there is no job of the name that `after` gives")
                older = sql.or_(jobs.c.created_at < last, (jobs.c.created_at == last) & (jobs.c.id < after))
                query = query.where(older)
            query = query.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
            return [_row(found) for found in connection.execute(query)]

    def position(self, row: JobRow) -> int | None:
        """How many jobs wait before this one; None if it does not wait."""
        if row.status != "queued":
            return None
        query = sql.select(sql.func.count()).where(jobs.c.status == "queued", jobs.c.created_at < row.created_at)
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def counts(self) -> dict[str, int]:
        """Jobs by status."""
        query = sql.select(jobs.c.status, sql.func.count()).group_by(jobs.c.status)
        with self._engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def cancel(self, id: str) -> JobRow | None:
        """Cancel a job that is not finished, whoever works at it; None if it is finished."""
        with self._transaction() as connection:
            return self._end(connection, id, jobs.c.status.in_(("queued", "running")), "cancelled", None, None)

    def delete(self, id: str) -> None:
        """Forget a job."""
        self._forget(id)
        self._truncate()

    def _forget(self, id: str) -> None:
        with self._transaction() as connection:
            for table in (segments, segmentations):
                connection.execute(table.delete().where(table.c.job == id))
            connection.execute(jobs.delete().where(jobs.c.id == id))

    def _truncate(self) -> None:
        """Empty SQLite's journal, which still has what was deleted."""
        if not self.is_shared:
            with self._writing, self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def purge(self, before: float) -> list[JobRow]:
        """Forget the jobs that were finished before a time; returns them."""
        old = (jobs.c.finished_at < before) & jobs.c.status.in_(FINAL)
        with self._engine.connect() as connection:
            found = [_row(row) for row in connection.execute(sql.select(*LIGHT).where(old))]
        for row in found:
            self._forget(row.id)
        if found:
            self._truncate()
        return found

    def sources(self) -> set[str]:
        """Files that unfinished jobs need."""
        query = sql.select(jobs.c.source).where(jobs.c.status.in_(("queued", "running")))
        with self._engine.connect() as connection:
            return set(connection.execute(query).scalars())

    # ---- servers

    def requeue(self, *, all_running: bool = False) -> int:
        """Give jobs back to the queue whose server is gone."""
        gone = jobs.c.status == "running"
        if not all_running:
            gone &= jobs.c.lease_until < self.clock()
        with self._transaction() as connection:
            return connection.execute(
                jobs.update().where(gone).values(status="queued", stage="queued", owner=None)
            ).rowcount

    def claim(self, owner: str, lease: float) -> JobRow | None:
        """Take the next job: that of the client with the fewest at work, and of these the oldest.

        Whoever changes the row from queued to running has it, also between servers.

        Args:
            owner: name of the claim: the server's, a point, and what no other claim has; so a server whose lease
                lapsed does not take an old claim of its own for the present one.
            lease: seconds.
        """
        while True:
            with self._transaction() as connection:
                row = self._next(connection)
                if row is None:
                    return None
                if row.starts >= STARTS:
                    error = {"message": "the server ended at every attempt at this job", "type": "server_error"}
                    self._end(connection, row.id, jobs.c.status == "queued", "failed", None, json.dumps(error))
                    continue
                now = self.clock()
                values = {
                    "status": "running",
                    "stage": "decode",
                    "owner": owner,
                    "lease_until": now + lease,
                    "started_at": row.started_at or now,
                    "starts": row.starts + 1,
                }
                mine = (jobs.c.id == row.id) & (jobs.c.status == "queued")
                if connection.execute(jobs.update().where(mine).values(**values)).rowcount == 1:
                    return JobRow(**{**vars(row), **values})

    def _next(self, connection: sql.Connection) -> JobRow | None:
        ready = (jobs.c.status == "queued") & (jobs.c.available_at <= self.clock())
        busy = (
            sql.select(jobs.c.client, sql.func.count().label("running"))
            .where(jobs.c.status == "running")
            .group_by(jobs.c.client)
            .subquery()
        )
        query = (
            sql.select(*LIGHT)
            .select_from(jobs.outerjoin(busy, busy.c.client == jobs.c.client))
            .where(ready)
            .order_by(sql.func.coalesce(busy.c.running, 0), jobs.c.created_at, jobs.c.id)
            .limit(1)
        )
        found = connection.execute(query).first()
        return _row(found) if found is not None else None

    def renew(self, owner: str, lease: float) -> None:
        """This server lives."""
        claims = (jobs.c.owner == owner) | jobs.c.owner.startswith(f"{owner}.", autoescape=True)
        mine = claims & (jobs.c.status == "running")
        with self._transaction() as connection:
            connection.execute(jobs.update().where(mine).values(lease_until=self.clock() + lease))

    def advance(
        self, id: str, owner: str, states: Sequence[State], segmentation: State | None = None, **values: Any
    ) -> JobRow | None:
        """Keep what was finished of a job; None if the job is no longer this claim's. `progress` never falls."""
        mine = (jobs.c.id == id) & (jobs.c.owner == owner) & (jobs.c.status == "running")
        with self._transaction() as connection:
            if states:
                values |= {"starts": 0}
            if "progress" in values:
                share = values["progress"]
                values |= {"progress": sql.case((jobs.c.progress > share, jobs.c.progress), else_=share)}
            if connection.execute(jobs.update().where(mine).values(**values)).rowcount != 1:
                return None
            if segmentation is not None:
                connection.execute(segmentations.delete().where(segmentations.c.job == id))
                connection.execute(segmentations.insert().values(job=id, state=json.dumps(segmentation)))
            known = set(connection.execute(sql.select(segments.c.key).where(segments.c.job == id)).scalars())
            new = {key_of(state): state for state in states if key_of(state) not in known}
            for key, state in new.items():
                connection.execute(segments.insert().values(job=id, key=key, state=json.dumps(state)))
            done = {"segments_done": len(known) + len(new)}
            connection.execute(jobs.update().where(mine).values(**done))
            return _row(connection.execute(sql.select(*LIGHT).where(jobs.c.id == id)).one())

    def segments(self, id: str) -> Sequence[State]:
        """What is finished of a job, in time order."""
        query = sql.select(segments.c.state).where(segments.c.job == id)
        with self._engine.connect() as connection:
            found = [json.loads(state) for state in connection.execute(query).scalars()]
        return sorted(found, key=lambda s: (s["start"], s["channel"] or 0))

    def segmentation(self, id: str) -> State | None:
        """What the detectors found in a job's recording, if they are through."""
        query = sql.select(segmentations.c.state).where(segmentations.c.job == id)
        with self._engine.connect() as connection:
            found = connection.execute(query).scalar_one_or_none()
        return json.loads(found) if found is not None else None

    def finish(self, id: str, owner: str, status: str, result: str | None, error: str | None) -> JobRow | None:
        """The end of a job, with its transcript or its error, and the webhook's message: all or nothing.

        Returns:
            The job; None if it is no longer this claim's (cancelled, or its lease expired).
        """
        mine = (jobs.c.owner == owner) & (jobs.c.status == "running")
        with self._transaction() as connection:
            return self._end(connection, id, mine, status, result, error)

    def release(self, id: str, owner: str, later: float = 0.0) -> None:
        """Put a job back into the queue."""
        mine = (jobs.c.id == id) & (jobs.c.owner == owner) & (jobs.c.status == "running")
        values = {"status": "queued", "stage": "queued", "owner": None, "available_at": self.clock() + later}
        with self._transaction() as connection:
            connection.execute(jobs.update().where(mine).values(**values))

    def _end(
        self,
        connection: sql.Connection,
        id: str,
        condition: sql.ColumnElement[bool],
        status: str,
        result: str | None,
        error: str | None,
    ) -> JobRow | None:
        values: dict[str, Any] = {"status": status, "stage": "done", "result": result, "error": error, "owner": None}
        values |= {"finished_at": self.clock()} | ({"progress": 1.0} if status == "succeeded" else {})
        changed = connection.execute(jobs.update().where(jobs.c.id == id, condition).values(**values))
        if changed.rowcount != 1:
            return None
        for table in (segments, segmentations):
            connection.execute(table.delete().where(table.c.job == id))
        row = _row(connection.execute(sql.select(*LIGHT).where(jobs.c.id == id)).one())
        if row.webhook is not None:
            message = f"msg_{secrets.token_hex(16)}"
            body = {"id": message, "url": row.webhook, "body": delivery_body(row)}
            connection.execute(deliveries.insert().values(**body, attempts=0, next_at=self.clock()))
        return row

    # ---- webhooks

    def due(self, limit: int, lease: float) -> Sequence[tuple[str, str, str, int]]:
        """Messages to be sent now: id, URL, body, attempts; nobody else gets them before the lease ends."""
        now = self.clock()
        query = sql.select(deliveries).where(deliveries.c.next_at <= now).order_by(deliveries.c.next_at).limit(limit)
        found = []
        with self._transaction() as connection:
            for row in connection.execute(query).all():
                mine = (deliveries.c.id == row.id) & (deliveries.c.next_at == row.next_at)
                taken = connection.execute(deliveries.update().where(mine).values(next_at=now + lease))
                if taken.rowcount == 1:
                    found.append((row.id, row.url, row.body, row.attempts))
        return found

    def delivered(self, id: str) -> None:
        """A message has arrived, or never will."""
        with self._transaction() as connection:
            connection.execute(deliveries.delete().where(deliveries.c.id == id))

    def deliver_later(self, id: str, attempts: int, seconds: float) -> None:
        """A message has not arrived."""
        values = {"attempts": attempts, "next_at": self.clock() + seconds}
        with self._transaction() as connection:
            connection.execute(deliveries.update().where(deliveries.c.id == id).values(**values))


def key_of(state: State) -> str:
    """What tells a segment from the others of its job."""
    return f"{state['channel']}:{state['start']:.3f}:{state['end']:.3f}"


NAMES = {f.name for f in fields(JobRow)}


def _row(found: Any) -> JobRow:
    return JobRow(**{name: value for name, value in found._mapping.items() if name in NAMES})


def _driver(url: str) -> str:
    for name in ("postgres://", "postgresql://"):
        if url.startswith(name):
            return "postgresql+psycopg://" + url.removeprefix(name)
    if not url.startswith(("sqlite:///", "postgresql+psycopg://")):
        raise OptionsError("the database must be a URL that begins with postgresql:// or sqlite:///")
    return url


def _pragmas(connection: Any, _: Any) -> None:
    """Readers do not wait for the writer; what was answered is on the disk, and what was deleted is overwritten."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=15000", "foreign_keys=ON", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
