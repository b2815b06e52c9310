"""Tells others that a job is over: signed (Standard Webhooks), to allowed hosts, again until it arrives."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import logging
import os
import random
import time
from collections.abc import Mapping, Sequence

import httpx

from vermilion.errors import VermilionError
from vermilion.server.jobs.store import JobStore
from vermilion.server.outbound import post
from vermilion.server.threads import Threads

log = logging.getLogger(__name__)
SECRET = "VERMILION_WEBHOOK_SECRET"
"""environment variable: `whsec_` and base64, or any text"""
DELAYS = (5.0, 30.0, 300.0, 1800.0, 7200.0, 21600.0, 43200.0)
"""seconds before each further attempt"""
LEASE = 60.0
TOLERANCE = 300.0


def secret() -> bytes | None:
    """The key of the signatures; None if there is none."""
    value = os.environ.get(SECRET, "")
    if value.startswith("whsec_"):
        try:
            return base64.b64decode(value.removeprefix("whsec_"), validate=True) or None
        except binascii.Error:
            log.warning("%s is not base64 behind whsec_; it is used as it stands", SECRET)
    return value.encode() or None


def sign(key: bytes, message: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    signed = f"{message}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def verify(key: bytes, headers: Mapping[str, str], body: bytes, now: float | None = None) -> bool:
    """Check a message, on the receiver's side: signature, and that it is not an old one."""
    message, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not stamp.isascii() or not stamp.isdigit() or abs((now or time.time()) - int(stamp)) > TOLERANCE:
        return False
    expected = sign(key, message, int(stamp), body)
    given = headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(expected.encode(), one.encode()) for one in given)


class Notifier:
    """Sends what the store has for others."""

    def __init__(
        self,
        store: JobStore,
        hosts: Sequence[str],
        delays: Sequence[float] = DELAYS,
        threads: Threads | None = None,
    ) -> None:
        """Take the store, the allowed hosts, and the threads that ask the store."""
        self.store, self.hosts, self.delays = store, hosts, delays
        self._threads = threads or Threads(1, "webhooks")

    async def run(self, wake: asyncio.Event) -> None:
        """Send until cancelled."""
        while True:
            sent = await self.send_due()
            if not sent:
                wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5.0):
                        await wake.wait()

    async def send_due(self) -> int:
        """Send what is due now; returns how much that was."""
        found = await self._threads.run(self.store.due, 8, LEASE)
        await asyncio.gather(*(self._send(*entry) for entry in found))
        return len(found)

    async def _send(self, message: str, url: str, body: str, attempts: int) -> None:
        status = await self._post(message, url, body.encode())
        if status is not None and (200 <= status < 300 or status == 410):  # 410: do not call again
            await self._threads.run(self.store.delivered, message)
        elif attempts >= len(self.delays):
            log.warning("webhook %s was not delivered after %d attempts", message, attempts + 1)
            await self._threads.run(self.store.delivered, message)
        else:
            delay = self.delays[attempts] * random.uniform(1.0, 1.2)
            await self._threads.run(self.store.deliver_later, message, attempts + 1, delay)

    async def _post(self, message: str, url: str, body: bytes) -> int | None:
        stamp = int(time.time())
        headers = {"content-type": "application/json", "webhook-id": message, "webhook-timestamp": str(stamp)}
        key = secret()
        if key is not None:
            headers["webhook-signature"] = sign(key, message, stamp, body)
        try:
            return await post(url, body, headers, allowed=self.hosts)
        except (VermilionError, httpx.HTTPError, TimeoutError, OSError) as error:
            log.info("webhook %s: %s", message, type(error).__name__)
            return None
