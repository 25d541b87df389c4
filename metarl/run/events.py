"""TensorBoard's event files, written without TensorBoard, whose import takes a second and whose writer is a thread.

A file is a sequence of records, each framed by its length and checksums; a record is an `Event`, a protocol buffer
(tensorboard/compat/proto/event.proto, summary.proto) of which only scalars are needed here.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path


class EventFile:
    """A file of scalars in a folder that TensorBoard is pointed at; raises `OSError` where it cannot be written."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        """Scalars of earlier files at `purge_step` and after it are not shown: the run goes on from before them."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 10**9:010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = next(path.open("xb") for n in range(10**6) if not (path := folder / f"{name}.{n}").exists())
        self._record(_varint(2, purge_step) + _bytes(3, b"brain.Event:2"))
        self._record(_varint(2, purge_step) + _bytes(7, _varint(1, 1)))  # a session starts

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append the scalars of a step."""
        values = (_bytes(1, name.encode()) + b"\x15" + struct.pack("<f", _single(v)) for name, v in scalars.items())
        self._record(_varint(2, step) + _bytes(5, b"".join(_bytes(1, value) for value in values)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _record(self, fields: bytes) -> None:
        event = b"\x09" + struct.pack("<d", time.time()) + fields
        length = struct.pack("<Q", len(event))
        self._file.write(length + _checksum(length) + event + _checksum(event))
        self._file.flush()


def _single(value: float) -> float:
    """The value, infinite where single precision does not reach."""
    return value if abs(value) <= 3.4e38 else value * float("inf")


def _varint(field: int, value: int) -> bytes:
    """A whole number of a protocol buffer, seven bits a byte."""
    coded = bytearray([field << 3])
    while value > 127:
        coded.append(value & 127 | 128)
        value >>= 7
    return bytes(coded + bytes([value]))


def _bytes(field: int, content: bytes) -> bytes:
    """A text or a nested message of a protocol buffer."""
    return bytes([field << 3 | 2]) + _varint(0, len(content))[1:] + content


def _checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted as TFRecord has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _table() -> list[int]:
    entries = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)
        entries.append(entry)
    return entries


_TABLE = _table()
