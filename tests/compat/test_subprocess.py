"""asyncio.subprocess as programs use it: pipelines of several processes, much data, many at once."""

import asyncio
import hashlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from pathlib import Path

import pytest

from .support import pattern

# Passes its input on and, at the end, prints its size.
TEE = "import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer); sys.stderr.write('tee done')"
DIGEST = "import sys, hashlib; print(hashlib.file_digest(sys.stdin.buffer, 'sha256').hexdigest())"


async def python(code: str, *arguments: str, **options: object) -> Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", code, *arguments, **options)


async def feed(process: Process, size: int) -> None:
    """Write `size` bytes, no faster than they are read, and end the input."""
    piece = pattern(2**20)
    for _ in range(size // len(piece)):
        process.stdin.write(piece)
        await process.stdin.drain()
    process.stdin.close()
    await process.stdin.wait_closed()


def digest(size: int) -> str:
    whole = hashlib.sha256()
    for _ in range(size // 2**20):
        whole.update(pattern(2**20))
    return whole.hexdigest()


def test_a_chain_of_processes_over_pipes_of_the_kernel(run) -> None:
    """tee | tee | digest, joined by os.pipe; the first is fed and the last is read by the loop."""
    size = 64 * 2**20

    async def main() -> None:
        (first_out, second_in), (second_out, third_in) = reversed(os.pipe()), reversed(os.pipe())
        first = await python(TEE, stdin=PIPE, stdout=first_out, stderr=PIPE)
        second = await python(TEE, stdin=second_in, stdout=second_out, stderr=PIPE)
        third = await python(DIGEST, stdin=third_in, stdout=PIPE)
        for descriptor in first_out, second_in, second_out, third_in:
            os.close(descriptor)
        said, _, *errors = await asyncio.gather(
            third.stdout.read(), feed(first, size), first.stderr.read(), second.stderr.read()
        )
        assert said.decode().strip() == digest(size)
        assert errors == [b"tee done", b"tee done"]
        assert await asyncio.gather(first.wait(), second.wait(), third.wait()) == [0, 0, 0]

    run(main())


def test_a_chain_of_processes_joined_by_the_loop(run) -> None:
    """tee, tee and digest again, and the loop carries the bytes from each to the next."""
    size = 32 * 2**20

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        first = await python(TEE, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        second = await python(TEE, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        third = await python(DIGEST, stdin=PIPE, stdout=PIPE)
        said, *_ = await asyncio.gather(
            third.stdout.read(),
            feed(first, size),
            carry(first.stdout, second.stdin),
            carry(second.stdout, third.stdin),
        )
        assert said.decode().strip() == digest(size)
        assert await asyncio.gather(first.wait(), second.wait(), third.wait()) == [0, 0, 0]

    run(main())


def test_communicate_with_much_data_both_ways(run) -> None:
    data = pattern(32 * 2**20)

    async def main() -> None:
        process = await python(TEE, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        out, err = await process.communicate(data)
        assert out == data
        assert err == b"tee done"
        assert process.returncode == 0

    run(main())


def test_many_at_once_keep_their_exit_statuses(run) -> None:
    code = "import sys; sys.stdout.write(sys.stdin.readline() * 2); sys.exit(int(sys.argv[1]))"

    async def main() -> None:
        async def one(number: int) -> None:
            process = await python(code, str(number), stdin=PIPE, stdout=PIPE)
            out, _ = await process.communicate(f"{number}\n".encode())
            assert (process.returncode, out) == (number, f"{number}\n{number}\n".encode())

        await asyncio.gather(*map(one, range(40)))

    run(main())


def test_shell_pipelines(run, tmp_path: Path) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_shell(
            "sort -n | uniq -c | sort -rn | head -n 3; exit 5", stdin=PIPE, stdout=PIPE
        )
        numbers = b"".join(b"%d\n" % (number % 10) * (number % 10 + 1) for number in range(1000))
        out, _ = await process.communicate(numbers)
        assert out.split() == [b"1000", b"9", b"900", b"8", b"800", b"7"]
        assert process.returncode == 5

        process = await asyncio.create_subprocess_shell(
            'echo "$WORD" in "$PWD"; echo trouble >&2',
            stdout=PIPE,
            stderr=STDOUT,
            cwd=tmp_path,
            env={**os.environ, "WORD": "hello"},
        )
        out, err = await process.communicate()
        assert (out.decode(), err) == (f"hello in {tmp_path}\ntrouble\n", None)

    run(main())


def test_a_conversation_line_by_line(run) -> None:
    code = "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)"

    async def main() -> None:
        process = await python(code, stdin=PIPE, stdout=PIPE)
        for number in range(200):
            process.stdin.write(f"line {number}\n".encode())
            assert (await process.stdout.readline()).decode().strip() == f"line {number}"[::-1]
        process.stdin.write_eof()
        assert await process.stdout.readline() == b""
        assert await process.wait() == 0

    run(main())


def test_signals_end_processes(run) -> None:
    code = "import sys, time; print('ready', flush=True); time.sleep(3600)"

    async def main() -> None:
        for end, number in (
            (Process.terminate, signal.SIGTERM),
            (Process.kill, signal.SIGKILL),
            (lambda process: process.send_signal(signal.SIGUSR1), signal.SIGUSR1),
        ):
            process = await python(code, stdout=PIPE)
            assert await process.stdout.readline() == b"ready\n"
            waiters = [asyncio.create_task(process.wait()) for _ in range(3)]
            end(process)
            assert await asyncio.gather(*waiters) == [-number] * 3
            with pytest.raises(ProcessLookupError):
                process.kill()

    run(main())


def test_a_child_that_stops_reading(run) -> None:
    async def main() -> None:
        process = await python("import sys; sys.stdin.close(); sys.exit(3)", stdin=PIPE)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            # An endless input, until the child ends.
            await feed(process, 2**60)
        assert await process.wait() == 3

    run(main())


def test_descriptors_and_sessions_of_ones_own(run) -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        code = "import os, sys; os.write(int(sys.argv[1]), b'%d' % (os.getsid(0) == os.getpid()))"
        process = await python(code, str(writer), pass_fds=(writer,), start_new_session=True)
        os.close(writer)
        assert await process.wait() == 0
        assert os.read(reader, 10) == b"1"
        os.close(reader)
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("/nowhere/program")

    run(main())
