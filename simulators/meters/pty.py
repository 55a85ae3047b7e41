"""A null-modem cable: two linked pseudo-terminals, so that a meter and a master each open a serial device.

For tests and the demonstration. What is written at one end is read at the other, in the same pieces; nothing is
paced by a baud rate. `disturb` may change, or swallow, what the master sends.
"""

import os
import select
import threading
import tty
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

PIECE_BYTES = 4_096


def _undisturbed(sent: bytes) -> bytes:
    return sent


class NullModem:
    """A context in which `meter_end` and `master_end` are devices."""

    def __init__(self, disturb: Callable[[bytes], bytes] = _undisturbed) -> None:
        self.disturb = disturb
        self._files: list[int] = []
        self._thread: threading.Thread | None = None
        self._stop_file = -1
        self.meter_end = Path()
        self.master_end = Path()

    def __enter__(self) -> "NullModem":
        master_core, master_tty = os.openpty()
        meter_core, meter_tty = os.openpty()
        stopping, self._stop_file = os.pipe()
        # the far files stay open: a pseudo-terminal that nobody holds would hang up
        self._files = [master_core, master_tty, meter_core, meter_tty, stopping, self._stop_file]
        for file in (master_tty, meter_tty):
            tty.setraw(file)
        self.master_end, self.meter_end = Path(os.ttyname(master_tty)), Path(os.ttyname(meter_tty))
        self._thread = threading.Thread(target=self._carry, args=(master_core, meter_core, stopping), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.write(self._stop_file, b"x")
        if self._thread is not None:
            self._thread.join()
        for file in self._files:
            os.close(file)

    def _carry(self, master_core: int, meter_core: int, stopping: int) -> None:
        while True:
            ready, _, _ = select.select([master_core, meter_core, stopping], [], [])
            if stopping in ready:
                return
            if master_core in ready:
                _write_all(meter_core, self.disturb(os.read(master_core, PIECE_BYTES)))
            if meter_core in ready:
                _write_all(master_core, os.read(meter_core, PIECE_BYTES))


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
