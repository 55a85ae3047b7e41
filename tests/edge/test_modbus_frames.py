import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer.rtu import FramerRTU

from edge.errors import ModbusError
from edge.modbus_frames import Answer, Request, RtuFraming, TcpFraming, crc16

ASKED = Request(1, 4, 0x00, 2)
ANSWER = bytes.fromhex("010404436633341b38")  # the example of the SDM630's document: 230.2 V


def test_requests_and_answers_of_a_serial_line_are_those_of_the_makers_documents() -> None:
    assert RtuFraming().encode(ASKED) == bytes.fromhex("01040000000271cb")
    assert RtuFraming().find_answer(ANSWER, ASKED) == Answer(bytes.fromhex("43663334"))


def test_a_request_over_tcp_has_a_header_with_a_number_that_never_returns_soon() -> None:
    framing = TcpFraming()
    assert framing.encode(ASKED) == bytes.fromhex("000100000006010400000002")
    numbers = [framing.encode(ASKED)[:2] for _ in range(0xFFFF)]
    assert len(set(numbers)) == 0xFFFF
    assert numbers[-1] == b"\x00\x00"


def test_writing_registers_is_confirmed_by_address_and_count() -> None:
    request = Request(247, 16, 0, 4, bytes(8))
    framing = TcpFraming()
    assert framing.encode(request)[7:] == bytes.fromhex("1000000004080000000000000000")
    assert framing.find_answer(bytes.fromhex("000100000006f71000000004"), request) == Answer()
    with pytest.raises(ModbusError, match="modbus_stray_answer"):
        framing.find_answer(bytes.fromhex("000100000006f71000000003"), request)


@given(st.binary(max_size=300))
def test_the_checksum_is_the_one_of_another_implementation(data: bytes) -> None:
    assert crc16(data) == FramerRTU.compute_CRC(data).to_bytes(2, "big")


@given(st.binary(max_size=300))
def test_no_bytes_whatever_break_the_framings(data: bytes) -> None:
    for framing in (TcpFraming(), RtuFraming()):
        framing.encode(ASKED)
        try:
            framing.find_answer(data, ASKED)
        except ModbusError as error:
            assert error.code in ("modbus_damaged_answer", "modbus_stray_answer")


@given(st.integers(0, 8 * len(ANSWER) - 1))
def test_one_flipped_bit_is_never_an_answer(bit: int) -> None:
    damaged = bytearray(ANSWER)
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        assert RtuFraming().find_answer(bytes(damaged), ASKED) is None
    except ModbusError as error:
        assert error.code == "modbus_damaged_answer"


@given(st.integers(0, len(ANSWER) - 1))
def test_an_answer_in_pieces_is_waited_for(length: int) -> None:
    assert RtuFraming().find_answer(ANSWER[:length], ASKED) is None


@given(st.lists(st.sampled_from(["other unit", "other function", "longer", "noise", "echo"]), max_size=4))
def test_what_is_for_others_is_passed_over(before: list[str]) -> None:
    def frame(*parts: bytes) -> bytes:
        body = b"".join(parts)
        return body + crc16(body)

    strays = {
        "other unit": frame(b"\x02\x04\x04\x11\x22\x33\x44"),
        "other function": frame(b"\x01\x03\x04\x11\x22\x33\x44"),
        "longer": frame(b"\x01\x04\x06\x11\x22\x33\x44\x55\x66"),
        "noise": b"\x00\xff\x00",
        "echo": RtuFraming().encode(ASKED),
    }
    received = b"".join(strays[name] for name in before) + ANSWER
    assert RtuFraming().find_answer(received, ASKED) == Answer(ANSWER[3:7])


@given(st.integers(1, 255))
def test_an_exception_is_an_answer(code: int) -> None:
    body = bytes([1, 0x84, code])
    assert RtuFraming().find_answer(body + crc16(body), ASKED) == Answer(exception=code)
    framing = TcpFraming()
    framing.encode(ASKED)
    assert framing.find_answer(struct.pack(">HHHB", 1, 0, 3, 1) + body[1:], ASKED) == Answer(exception=code)


def test_a_web_server_at_the_port_is_no_meter() -> None:
    framing = TcpFraming()
    framing.encode(ASKED)
    with pytest.raises(ModbusError, match="modbus_damaged_answer"):
        framing.find_answer(b"HTTP/1.1 400 Bad Request\r\n", ASKED)
