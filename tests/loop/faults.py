"""Rare errors of the kernel: a library, loaded before libc, that makes system calls fail as in a bad network."""

import errno
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from .support import python

# Each call reads its setting from the environment: how many calls pass, how many then fail with which number; later calls go to libc.
SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

struct fault { int number; atomic_int pass, fail; };

static int due(const char *name, struct fault *fault, atomic_int *known) {
    if (!atomic_exchange(known, 1)) {
        char variable[64], *text;
        snprintf(variable, sizeof variable, "FAULT_%s", name);
        int pass = 0, number = 0, fail = 0;
        if ((text = getenv(variable)) && sscanf(text, "%d:%d:%d", &pass, &fail, &number) == 3) {
            fault->number = number;
            atomic_store(&fault->pass, pass);
            atomic_store(&fault->fail, fail);
        }
    }
    if (!fault->number || atomic_fetch_sub(&fault->pass, 1) > 0) return 0;
    if (atomic_fetch_sub(&fault->fail, 1) <= 0) return 0;
    return errno = fault->number;
}

#define FAULTY(result, name, parameters, arguments)                                  \
    result name parameters {                                                         \
        static struct fault fault;                                                   \
        static atomic_int known;                                                     \
        static result (*real) parameters;                                            \
        if (!real) real = (result (*) parameters)dlsym(RTLD_NEXT, #name);            \
        return due(#name, &fault, &known) ? -1 : real arguments;                     \
    }

FAULTY(ssize_t, recv, (int fd, void *p, size_t n, int flags), (fd, p, n, flags))
FAULTY(ssize_t, send, (int fd, const void *p, size_t n, int flags), (fd, p, n, flags))
FAULTY(ssize_t, sendto, (int fd, const void *p, size_t n, int flags, const struct sockaddr *a, socklen_t l), (fd, p, n, flags, a, l))
FAULTY(ssize_t, sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags))
FAULTY(ssize_t, recvmsg, (int fd, struct msghdr *m, int flags), (fd, m, flags))
FAULTY(int, recvmmsg, (int fd, struct mmsghdr *m, unsigned n, int flags, struct timespec *t), (fd, m, n, flags, t))
FAULTY(int, pidfd_open, (int pid, unsigned flags), (pid, flags))

/* A name that begins with "stuck" is looked up for as long as the pipe named by STUCK has a writer. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **list) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (!real) real = (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
    if (!node || strncmp(node, "stuck", 5)) return real(node, service, hints, list);
    char byte;
    struct pollfd pipe = {.fd = open(getenv("STUCK"), O_RDONLY | O_NONBLOCK), .events = POLLIN};
    while (read(pipe.fd, &byte, 1) < 0) poll(&pipe, 1, -1);
    close(pipe.fd);
    return EAI_NONAME;
}

/* An accept that fails takes the connection that it fails for, as the kernel does. One for want of descriptors does not, nor
   does one that a rule forbids, given here as a negative number. */
int accept4(int fd, struct sockaddr *a, socklen_t *n, int flags) {
    static struct fault fault;
    static atomic_int known;
    static int (*real)(int, struct sockaddr *, socklen_t *, int);
    if (!real) real = (int (*)(int, struct sockaddr *, socklen_t *, int))dlsym(RTLD_NEXT, "accept4");
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    if (poll(&ready, 1, 0) != 1) return real(fd, a, n, flags);
    int number = due("accept4", &fault, &known);
    if (!number) return real(fd, a, n, flags);
    if (number > 0 && number != EMFILE && number != ENFILE && number != ENOBUFS && number != ENOMEM)
        close(real(fd, a, n, flags));
    errno = abs(number);
    return -1;
}
"""


@functools.cache
def _library() -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    directory = Path(tempfile.mkdtemp(prefix="faults-"))
    source = directory / "faults.c"
    source.write_text(SOURCE)
    target = directory / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", str(source), "-o", str(target), "-ldl"], check=True)
    return str(target)


def python_stuck(code: str, pipe: Path, *args: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run *code* where names that begin with "stuck" are looked up for as long as *pipe*, made here, has a writer."""
    os.mkfifo(pipe)
    return python(code, *args, LD_PRELOAD=_library(), STUCK=str(pipe), **environ)


def python_with(code: str, *args: str, **faults: tuple[int, int, int]) -> "subprocess.CompletedProcess[str]":
    """Run *code* where calls fail: ``recv=(2, 3, errno.EIO)`` lets two of them pass and has the next three fail."""
    environ = {f"FAULT_{name}": ":".join(map(str, fault)) for name, fault in faults.items()}
    return python(code, *args, LD_PRELOAD=_library(), **environ)


def name_of(number: int) -> str:
    return errno.errorcode[number]
