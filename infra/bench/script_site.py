"""What the two scripts of the comparison share and no figure depends on: arguments, connection, the answer at the end.

A script is a process of its own: `python -m infra.bench.<name> --database-url … --messages N …`. It prints
{"ready": true} once subscribed and {"committed_readings", "at_s"} once all messages are committed, then waits to be
stopped, so that its CPU time can still be read.
"""

import argparse
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from protocol.seal import SEAL_BYTES, SIGNATURE_BYTES
from protocol.topics import PREFIX

READER_USER = "bench-reader"
"""A broker account that may read every seal, as the hub's sixteen together do."""

SECTION_AT = SEAL_BYTES + SIGNATURE_BYTES

_decode = msgspec.msgpack.Decoder(list[Any]).decode


def arguments() -> argparse.Namespace:
    """The command line of a script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca-file", type=Path, required=True)
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--community", required=True)
    parser.add_argument("--messages", type=int, required=True, help="Stop counting after so many.")
    parser.add_argument("--keys", type=Path, help="JSON object: public key (hex) by meter id.")
    return parser.parse_args()


def subscribe(given: argparse.Namespace, on_message: Callable[[str, bytes], None]) -> Client:
    """A client that is subscribed to all seals, QoS 1, acknowledged as soon as the callback returns."""
    threading.excepthook = _end_with_the_thread
    ready: queue.Queue[bool] = queue.Queue()
    client = Client(CallbackAPIVersion.VERSION2, client_id=READER_USER, protocol=MQTTProtocolVersion.MQTTv5)
    client.username_pw_set(READER_USER, given.password_file.read_text())
    client.tls_set(str(given.ca_file))

    def on_connect(*_: Any) -> None:
        client.subscribe(f"{PREFIX}/{given.community}/+/+/seals", qos=1)

    client.on_connect = on_connect
    client.on_subscribe = lambda *_: ready.put(True)
    client.on_message = lambda _client, _data, message: on_message(message.topic, bytes(message.payload))
    client.connect(given.host, given.port)
    client.loop_start()
    ready.get(timeout=30)
    print(json.dumps({"ready": True}), flush=True)
    return client


def _end_with_the_thread(fault: threading.ExceptHookArgs) -> None:
    """A callback that fails ends the process, not only paho's thread: nobody shall wait for it."""
    sys.__excepthook__(fault.exc_type, fault.exc_value or fault.exc_type(), fault.exc_traceback)
    os._exit(1)


def finish(committed_readings: int) -> None:
    """Say that everything is committed, as of now, and wait for SIGTERM."""
    print(json.dumps({"committed_readings": committed_readings, "at_s": time.monotonic()}), flush=True)
    threading.Event().wait()


def columns(section: bytes) -> list[list[int]]:
    """Times, production, consumption, power, voltage, frequency; the optional ones are always there in this fleet."""
    time_s, production_wh, consumption_wh, steps, produced, consumed, power, voltage, frequency, _ = _decode(section)
    following = ((time_s, steps), (production_wh, produced), (consumption_wh, consumed))
    return [
        *(list(accumulate(deltas, initial=start)) for start, deltas in following),
        *(list(accumulate(deltas)) for deltas in (power, voltage, frequency)),
    ]
