"""A wire between network namespaces: packets go through this process, which delays and loses them.

For kernels without `tc`'s netem. Each namespace has a TUN device (Linux's networking/tuntap.rst),
whose other end is a file here. What TCP does about delay and loss is the kernel's own doing.

`python -m tests.trials.wire` holds one, and does what its input asks; it must be root.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench.child import answer_lines

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
_CLONE_NEWNET = 0x40000000
_NAMESPACES = Path("/run/netns")
_IPV4 = 4
_MTU = 1500  # of Ethernet: a loss is one such packet
_TICK_S = 0.05


@dataclass(frozen=True, slots=True)
class Link:
    """One way between two ends: a delay, and the share of packets that never arrive."""

    delay_s: float = 0.0
    loss: float = 0.0


class Wire:
    """Ends by address, and what lies between each two of them."""

    def __init__(self) -> None:
        self._ends: dict[bytes, int] = {}
        self._names: dict[str, bytes] = {}
        self._links: dict[tuple[bytes, bytes], Link] = {}
        self._poll = select.epoll()
        self._seen = {"packets": 0, "lost": 0}
        self._random = random.Random(20261129)
        threading.Thread(target=self._carry, daemon=True).start()

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """`do` names the method that is wanted."""
        answered: dict[str, Any] = getattr(self, question.pop("do"))(**question)
        return answered

    def join(self, name: str, address: str, namespace: str = "", device: str = "tun0") -> Any:
        """Gives a namespace, or this process's own, an address on the wire."""
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        try:
            if namespace:
                _enter(os.open(_NAMESPACES / namespace, os.O_RDONLY))
            end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            asked = struct.pack("16sH22x", device.encode(), _IFF_TUN | _IFF_NO_PI)
            fcntl.ioctl(end, _TUNSETIFF, asked)
            for words in (
                f"ip addr add {address}/24 dev {device}",
                f"ip link set {device} mtu {_MTU} up",
                "ip link set lo up",
            ):
                subprocess.run(words.split(), check=True, capture_output=True)
        finally:
            _enter(here)
        known = socket.inet_aton(address)
        self._ends[known] = end
        self._names[name] = known
        self._poll.register(end, select.EPOLLIN)
        return {}

    def link(self, one: str, other: str, delay_ms: float = 0.0, loss: float = 0.0) -> Any:
        """Delays every packet between these two, each way, and loses that share of them."""
        a, b = self._names[one], self._names[other]
        self._links[a, b] = self._links[b, a] = Link(delay_ms / 1e3, loss)
        return {}

    def seen(self) -> dict[str, int]:
        """Packets carried and lost so far."""
        return dict(self._seen)

    def _carry(self) -> None:
        waiting: list[tuple[float, int, bytes, bytes]] = []
        number = 0
        while True:
            timeout_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else _TICK_S
            for end, _ in self._poll.poll(min(timeout_s, _TICK_S)):
                packet = os.read(end, 65536)
                source, target = packet[12:16], packet[16:20]
                if packet[0] >> 4 != _IPV4 or target not in self._ends:
                    continue
                self._seen["packets"] += 1
                link = self._links.get((source, target), Link())
                if link.loss and self._random.random() < link.loss:
                    self._seen["lost"] += 1
                elif link.delay_s:
                    number += 1
                    due = time.monotonic() + link.delay_s
                    heapq.heappush(waiting, (due, number, target, packet))
                else:
                    self._put(target, packet)
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, target, packet = heapq.heappop(waiting)
                self._put(target, packet)

    def _put(self, target: bytes, packet: bytes) -> None:
        try:
            os.write(self._ends[target], packet)
        except OSError:  # its queue is full, or its namespace is gone: a wire loses it too
            self._seen["lost"] += 1


def _enter(namespace: int) -> None:
    """setns(2): Python has it from 3.12 on. Closes the file."""
    try:
        if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(namespace)


if __name__ == "__main__":
    answer_lines(Wire().answer)
