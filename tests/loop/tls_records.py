"""Records of TLS 1.3 that no library would send, encrypted with a connection's own key (AES-GCM in plain Python: a few bytes only).

A peer whose context was given to ``noting_secrets`` has its secrets in a file; ``record`` makes of one of them what goes on the wire.
"""

import hashlib
import hmac
import ssl
from pathlib import Path

APPLICATION_DATA, HANDSHAKE = 23, 22
# A KeyUpdate's type and length; its one byte never comes.
HALF_A_KEY_UPDATE = bytes([24, 0, 0, 1])


def noting_secrets(context: ssl.SSLContext, path: Path) -> ssl.SSLContext:
    context.keylog_filename = str(path)
    return context


def secret(path: Path, side: str) -> bytes:
    """The last secret by which *side* ("CLIENT" or "SERVER") encrypts what it sends."""
    lines = [line.split() for line in path.read_text().splitlines()]
    return bytes.fromhex([line[2] for line in lines if line[0] == f"{side}_TRAFFIC_SECRET_0"][-1])


def record(traffic_secret: bytes, sequence: int, content: bytes, kind: int = HANDSHAKE) -> bytes:
    """The *sequence*-th record after the handshake, from 0."""
    name = {32: "sha256", 48: "sha384"}[len(traffic_secret)]
    key = _derived(traffic_secret, name, b"key", 16 if name == "sha256" else 32)
    nonce = int.from_bytes(_derived(traffic_secret, name, b"iv", 12)) ^ sequence
    plaintext = content + bytes([kind])
    header = bytes([APPLICATION_DATA, 3, 3]) + (len(plaintext) + 16).to_bytes(2)
    return header + _sealed(key, nonce.to_bytes(12), plaintext, header)


def _derived(traffic_secret: bytes, name: str, label: bytes, size: int) -> bytes:
    label = b"tls13 " + label
    info = size.to_bytes(2) + bytes([len(label)]) + label + b"\0"
    return hmac.digest(traffic_secret, info + b"\1", getattr(hashlib, name))[:size]


# ---- AES-GCM ----------------------------------------------------------------------------------------------


def _times(a: int, b: int) -> int:
    """The product in AES's field of 256 elements."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def _substituted(value: int) -> int:
    inverse = next((other for other in range(256) if _times(value, other) == 1), 0)
    result = 0x63
    for turn in range(5):
        result ^= inverse << turn | inverse >> 8 - turn
    return result & 0xFF


_BOX = [_substituted(value) for value in range(256)]


def _round_keys(key: bytes) -> list[bytes]:
    words, length = [key[i : i + 4] for i in range(0, len(key), 4)], len(key) // 4
    constant = 1
    while len(words) < 4 * (length + 7):
        word = words[-1]
        if len(words) % length == 0:
            word = bytes(_BOX[byte] for byte in word[1:] + word[:1])
            word = bytes([word[0] ^ constant]) + word[1:]
            constant = _times(constant, 2)
        elif length > 6 and len(words) % length == 4:
            word = bytes(_BOX[byte] for byte in word)
        words.append(bytes(a ^ b for a, b in zip(words[-length], word, strict=True)))
    return [b"".join(words[i : i + 4]) for i in range(0, len(words), 4)]


def _encrypted(keys: list[bytes], block: bytes) -> bytes:
    state = [a ^ b for a, b in zip(block, keys[0], strict=True)]
    for number, key in enumerate(keys[1:], 1):
        state = [_BOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if number < len(keys) - 1:
            state = [
                _times(state[i], 2)
                ^ _times(state[i - i % 4 + (i + 1) % 4], 3)
                ^ state[i - i % 4 + (i + 2) % 4]
                ^ state[i - i % 4 + (i + 3) % 4]
                for i in range(16)
            ]
        state = [a ^ b for a, b in zip(state, key, strict=True)]
    return bytes(state)


def _hashed(subkey: int, data: bytes) -> int:
    result = 0
    for start in range(0, len(data), 16):
        factor, product = result ^ int.from_bytes(data[start : start + 16]), 0
        for bit in range(127, -1, -1):
            if subkey >> bit & 1:
                product ^= factor
            factor = factor >> 1 ^ (0xE1 << 120 if factor & 1 else 0)
        result = product
    return result


def _sealed(key: bytes, nonce: bytes, plaintext: bytes, header: bytes) -> bytes:
    keys = _round_keys(key)
    stream = b"".join(
        _encrypted(keys, nonce + (2 + number).to_bytes(4)) for number in range(-(-len(plaintext) // 16))
    )
    ciphertext = bytes(a ^ b for a, b in zip(plaintext, stream, strict=False))
    padded = b"".join(part + bytes(-len(part) % 16) for part in (header, ciphertext))
    lengths = (8 * len(header)).to_bytes(8) + (8 * len(ciphertext)).to_bytes(8)
    tag = _hashed(int.from_bytes(_encrypted(keys, bytes(16))), padded + lengths)
    tag ^= int.from_bytes(_encrypted(keys, nonce + (1).to_bytes(4)))
    return ciphertext + tag.to_bytes(16)
