"""The same service in Starlette and in FastAPI, for test_uvicorn; importable by the uvicorn program too."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse as FastAPIStreamingResponse
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from .support import pattern

PIECES = 64
PIECE = pattern(65536)


class Life:
    """The state of the application: `events`, and a request that waits until it is released."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.waiting = asyncio.Event()
        self.go = asyncio.Event()

    @asynccontextmanager
    async def span(self, app: object) -> AsyncIterator[dict[str, Any]]:
        self.events.append("startup")
        yield {"life": self}
        self.events.append("shutdown")


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(PIECES):
        yield PIECE
        await asyncio.sleep(0)


async def digest_of(request: Request) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    return {"size": size, "digest": digest.hexdigest()}


async def wait(request: Request) -> dict[str, str]:
    life = request.state.life
    life.waiting.set()
    await life.go.wait()
    return {"answer": "late"}


async def shout(websocket: WebSocket) -> None:
    """Sends back what it receives, text in capitals, until it is closed."""
    await websocket.accept(subprotocol="shout" if "shout" in websocket.scope["subprotocols"] else None)
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                websocket.state.life.events.append(f"closed {message['code']}")
                return
            if message.get("text") == "leave":
                await websocket.close(4001, "as you wish")
                return
            if message.get("text") is not None:
                await websocket.send_text(message["text"].upper())
            else:
                await websocket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        websocket.state.life.events.append("gone")


def in_thread(a: int, b: int) -> dict[str, int]:
    """A plain function: both frameworks run it in a worker thread."""
    time.sleep(0)
    return {"sum": a + b}


def starlette_application(life: Life) -> Starlette:
    async def add(request: Request) -> JSONResponse:
        numbers = await request.json()
        return JSONResponse({"sum": numbers["a"] + numbers["b"]})

    def threaded(request: Request) -> JSONResponse:
        numbers = request.query_params
        return JSONResponse(in_thread(int(numbers["a"]), int(numbers["b"])))

    async def stream(request: Request) -> Response:
        return StreamingResponse(pieces())

    async def digest(request: Request) -> JSONResponse:
        return JSONResponse(await digest_of(request))

    async def later(request: Request) -> JSONResponse:
        return JSONResponse({}, background=BackgroundTask(life.events.append, "background"))

    async def fail(request: Request) -> Response:
        raise RuntimeError("on purpose")

    async def waiting(request: Request) -> JSONResponse:
        return JSONResponse(await wait(request))

    routes = [
        Route("/add", add, methods=["POST"]),
        Route("/threaded", threaded),
        Route("/stream", stream),
        Route("/digest", digest, methods=["POST"]),
        Route("/later", later),
        Route("/fail", fail),
        Route("/wait", waiting),
        WebSocketRoute("/shout", shout),
    ]
    return Starlette(routes=routes, lifespan=life.span)


class Numbers(BaseModel):
    a: int
    b: int


def fastapi_application(life: Life) -> FastAPI:
    app = FastAPI(lifespan=life.span)

    async def happened() -> AsyncIterator[list[str]]:
        yield life.events

    @app.post("/add")
    async def add(numbers: Numbers) -> dict[str, int]:
        return {"sum": numbers.a + numbers.b}

    @app.get("/threaded")
    def threaded(a: int, b: int) -> dict[str, int]:
        return in_thread(a, b)

    @app.get("/stream")
    async def stream() -> FastAPIStreamingResponse:
        return FastAPIStreamingResponse(pieces())

    @app.post("/digest")
    async def digest(request: Request) -> dict[str, Any]:
        return await digest_of(request)

    @app.get("/later")
    async def later(events: Annotated[list[str], Depends(happened)]) -> JSONResponse:
        return JSONResponse({}, background=BackgroundTask(events.append, "background"))

    @app.get("/fail")
    async def fail() -> None:
        raise RuntimeError("on purpose")

    @app.get("/wait")
    async def waiting(request: Request) -> dict[str, str]:
        return await wait(request)

    app.add_api_websocket_route("/shout", shout)
    return app


APPLICATIONS: dict[str, Callable[[Life], Any]] = {
    "starlette": starlette_application,
    "fastapi": fastapi_application,
}


def program() -> FastAPI:
    """For the command line: `uvicorn --factory tests.compat.applications:program`."""
    return fastapi_application(Life())
