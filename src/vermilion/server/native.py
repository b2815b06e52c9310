"""Our own live socket, which the web page uses: samples in, events as `vermilion live --jsonl` writes them out."""

from __future__ import annotations

from fastapi import WebSocket, WebSocketDisconnect

from vermilion.errors import VermilionError
from vermilion.live.events import event_to_dict
from vermilion.live.options import LiveOptions
from vermilion.server.backend import Backend, LiveLink
from vermilion.server.errors import RequestError, shape
from vermilion.server.socket_helpers import (
    Closing,
    Frames,
    Samples,
    SocketLimits,
    both,
    close,
    closing_code,
    feed,
    give_up,
    parse,
    send,
)

PROTOCOL = "vermilion"
LIMITS = SocketLimits(text_bytes=1 << 16)


async def serve_live(
    websocket: WebSocket,
    backend: Backend,
    *,
    rate: int,
    language: str | None,
    options: LiveOptions,
    limits: SocketLimits = LIMITS,
) -> None:
    """Serve one socket: binary frames are mono int16 samples, `{"type": "finish"}` ends, `{"type": "cut"}` cuts.

    Args:
        websocket: not yet accepted.
        backend: the engines.
        rate: samples per second.
        language: of the speech, where it is known.
        options: when utterances end.
        limits: of the socket.
    """
    await websocket.accept(PROTOCOL if PROTOCOL in websocket.scope["subprotocols"] else None)
    frames = Frames(websocket, limits)
    link: LiveLink | None = None
    try:
        link = await backend.open_live(options, language)
        await both(_hear(frames, link, rate), _tell(websocket, link))
        await close(websocket)
    except Closing as end:
        await close(websocket, end.code, end.reason)
    except WebSocketDisconnect:
        return
    except VermilionError as error:
        await _fail(websocket, error)
    except Exception as error:
        await _fail(websocket, error)
        raise
    finally:
        await give_up(link)
        await frames.close()


async def _hear(frames: Frames, link: LiveLink, rate: int) -> bool:
    samples = Samples()
    async for frame in frames:
        if isinstance(frame, bytes):
            await feed(link, samples.take(frame), rate)
            continue
        match parse(frame).get("type"):
            case "finish":
                await link.finish()
                return await frames.stays()
            case "cut":
                await link.cut()
            case _:
                raise RequestError('text frames are {"type": "finish"} or {"type": "cut"}', code="unknown_type")
    return False


async def _tell(websocket: WebSocket, link: LiveLink) -> None:
    count = 0
    async for event in link.events():
        count += 1
        await send(websocket, event_to_dict(event))
    await send(websocket, {"type": "finished", "events": count})


async def _fail(websocket: WebSocket, error: Exception) -> None:
    try:
        await send(websocket, {"type": "error", **shape(error).body()})
    except WebSocketDisconnect:
        return
    await close(websocket, closing_code(error), shape(error).message)
