"""Transports on FIFOs, terminals and character devices."""

import os
import termios
import tty
from io import FileIO

import pytest

from .test_pipe import reader, writer


@pytest.fixture
def terminal():
    """Both sides of a pseudo-terminal in raw mode, as unbuffered file objects open both ways."""
    master, slave = os.openpty()
    tty.setraw(slave)
    sides = FileIO(master, "r+b"), FileIO(slave, "r+b")
    yield sides
    for side in sides:
        side.close()


def test_a_named_fifo(loop, run, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    read = FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    write = FileIO(path, "wb")

    async def main():
        sending, sender = await writer(loop, write)
        sending.write(b"unread")
        _, receiver = await reader(loop, read)
        assert await receiver.received(6) == b"unread"
        assert not sending.is_closing()
        sending.close()
        await receiver.lost()
        await sender.lost()

    run(main())


def test_a_terminal_is_read_and_written_through_one_descriptor(loop, run, terminal):
    master, slave = terminal

    async def main():
        receiving, receiver = await reader(loop, master)
        sending, sender = await writer(loop, master)
        slave.write(b"from the slave")
        assert await receiver.received(14) == b"from the slave"
        sending.write(b"to the slave")
        from_master, other = await reader(loop, slave)
        assert await other.received(12) == b"to the slave"
        data = bytes(range(256)) * 400
        sending.write(data)
        assert (await other.received(12 + len(data)))[12:] == data
        # Unread data of the other direction does not end the writing side.
        slave.write(b"more")
        assert await receiver.received(18) == b"from the slavemore"
        assert not sending.is_closing()
        receiving.close()
        await receiver.lost()
        sending.abort()
        await sender.lost()
        from_master.close()
        await other.lost()

    run(main())


def test_lines_of_a_terminal_come_one_by_one(loop, run):
    master, slave = os.openpty()
    settings = termios.tcgetattr(slave)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    os.write(master, b"one\ntwo\nthree\n")

    async def main():
        receiving, receiver = await reader(loop, FileIO(slave, "rb"))
        assert await receiver.received(14) == b"one\ntwo\nthree\n"
        os.write(master, b"\x04")  # The end, as typed.
        assert await receiver.lost() is None
        assert receiver.log[-2:] == ["eof", "lost"] and receiving.is_closing()

    run(main())
    os.close(master)


def test_a_terminal_that_hangs_up_ends_quietly(loop, run, terminal, contexts):
    master, slave = terminal

    async def main():
        _, receiver = await reader(loop, master)
        slave.close()
        lost = await receiver.lost()
        assert isinstance(lost, OSError) and "Input/output error" in str(lost)
        assert receiver.log == ["made", "lost"] and contexts == []

    run(main())


def test_the_null_device_is_at_its_end_and_swallows(loop, run):
    async def main():
        _, receiver = await reader(loop, FileIO("/dev/null", "rb"))
        assert await receiver.lost() is None
        assert receiver.log == ["made", "eof", "lost"]
        sending, sender = await writer(loop, FileIO("/dev/null", "wb"))
        sending.write(b"x" * 10_000_000)
        assert sending.get_write_buffer_size() == 0
        sending.close()
        await sender.lost()

    run(main())


def test_a_full_device_fails_the_write(loop, run, contexts):
    async def main():
        sending, sender = await writer(loop, FileIO("/dev/full", "wb"))
        sending.write(b"x")
        assert "No space left" in str(await sender.lost())
        assert contexts == []

    run(main())
