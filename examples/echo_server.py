"""An echo server with asyncio's streams, running on a TokioLoop.

    python examples/echo_server.py                  a server and three clients in one process, then the end
    python examples/echo_server.py --port 8888      the server alone, until Ctrl-C

Only the last line is specific to tokioloop: programs written for asyncio run unchanged.
"""

import argparse
import asyncio

import tokioloop


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send every line back, until the client has no more."""
    async for line in reader:
        writer.write(line)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def talk(port: int, name: str) -> int:
    """Send three lines and check what comes back; the number of bytes echoed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    echoed = 0
    for number in range(3):
        line = f"{name} says {number}\n".encode()
        writer.write(line)
        answer = await reader.readline()
        if answer != line:
            raise RuntimeError(f"sent {line!r}, got {answer!r}")
        echoed += len(answer)
    writer.close()
    await writer.wait_closed()
    return echoed


async def main(port: int | None) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", port or 0)
    async with server:
        port_in_use = server.sockets[0].getsockname()[1]
        print(f"{type(asyncio.get_running_loop()).__name__} listens on port {port_in_use}")
        if port:
            await server.serve_forever()
        counts = await asyncio.gather(*(talk(port_in_use, name) for name in ("Ada", "Grace", "Edsger")))
        print(f"{sum(counts)} bytes came back right, over {len(counts)} connections")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An echo server on a TokioLoop.")
    parser.add_argument("--port", type=int, help="serve on this port until Ctrl-C, without clients")
    try:
        tokioloop.run(main(parser.parse_args().port))
    except KeyboardInterrupt:
        print("ended by Ctrl-C")
