"""Tables of the store of jobs."""

from __future__ import annotations

import sqlalchemy as sql

metadata = sql.MetaData()
jobs = sql.Table(
    "jobs",
    metadata,
    sql.Column("id", sql.String(40), primary_key=True),
    sql.Column("client", sql.String(80), nullable=False),
    sql.Column("status", sql.String(12), nullable=False, index=True),
    sql.Column("stage", sql.String(12), nullable=False),
    sql.Column("created_at", sql.Float, nullable=False, index=True),
    sql.Column("started_at", sql.Float),
    sql.Column("finished_at", sql.Float),
    sql.Column("available_at", sql.Float, nullable=False),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("bytes", sql.BigInteger, nullable=False),
    sql.Column("language", sql.String(40)),
    sql.Column("channels", sql.String(10), nullable=False),
    sql.Column("kind", sql.String(10), nullable=False),
    sql.Column("source", sql.Text, nullable=False),
    sql.Column("webhook", sql.Text),
    sql.Column("same", sql.String(200)),
    sql.Column("duration", sql.Float),
    sql.Column("progress", sql.Float, nullable=False),
    sql.Column("segments_done", sql.Integer, nullable=False),
    sql.Column("segments_total", sql.Integer),
    sql.Column("error", sql.Text),
    sql.Column("result", sql.Text),
    sql.Column("owner", sql.String(40)),
    sql.Column("lease_until", sql.Float),
    sql.Column("starts", sql.Integer, nullable=False),
    sql.UniqueConstraint("client", "same"),
)
segments = sql.Table(
    "segments",
    metadata,
    sql.Column("job", sql.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sql.Column("key", sql.String(60), primary_key=True),
    sql.Column("state", sql.Text, nullable=False),
)
segmentations = sql.Table(
    "segmentations",
    metadata,
    sql.Column("job", sql.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sql.Column("state", sql.Text, nullable=False),
)
deliveries = sql.Table(
    "deliveries",
    metadata,
    sql.Column("id", sql.String(40), primary_key=True),
    sql.Column("url", sql.Text, nullable=False),
    sql.Column("body", sql.Text, nullable=False),
    sql.Column("attempts", sql.Integer, nullable=False),
    sql.Column("next_at", sql.Float, nullable=False, index=True),
)
LIGHT = [column for column in jobs.c if column.name != "result"]
"""columns of a job without its transcript"""
