"""The sliver of MessagePack that the protocol uses: integers, nil, byte strings and arrays of them.

MicroPython has no MessagePack, and a board needs no more than this. What is not listed above (floats, text,
maps, booleans, extensions) is refused, as are trailing bytes and nesting deeper than `DEPTH_MAX`.
Format: the MessagePack specification, https://github.com/msgpack/msgpack/blob/master/spec.md
"""

import struct

from protocol.errors import ProtocolError

DEPTH_MAX = 4


def pack(value: object) -> bytes:
    """Encode an int, None, bytes, or a list or tuple of those, each in its shortest form.

    Raises ProtocolError `msgpack_unsupported` for anything else and for integers beyond 64 bits.
    """
    out = bytearray()
    _pack_into(out, value, 0)
    return bytes(out)


def _pack_into(out: bytearray, value: object, depth: int) -> None:
    if value is None:
        out.append(0xC0)
    elif isinstance(value, int) and not isinstance(value, bool):
        _pack_int(out, value)
    elif isinstance(value, bytes):
        _pack_length(out, len(value), None, 0xC4, 0xC5, 0xC6)
        out.extend(value)
    elif isinstance(value, (list, tuple)) and depth < DEPTH_MAX:
        _pack_length(out, len(value), 0x90, None, 0xDC, 0xDD)
        for item in value:
            _pack_into(out, item, depth + 1)
    else:
        raise ProtocolError("msgpack_unsupported", "cannot encode this value")


def _pack_int(out: bytearray, value: int) -> None:
    if -32 <= value < 128:
        out.append(value & 0xFF)
    elif value >= 0:
        if value < 1 << 8:
            out.append(0xCC)
            out.append(value)
        elif value < 1 << 16:
            out.extend(struct.pack(">BH", 0xCD, value))
        elif value < 1 << 32:
            out.extend(struct.pack(">BI", 0xCE, value))
        elif value < 1 << 64:
            out.extend(struct.pack(">BQ", 0xCF, value))
        else:
            raise ProtocolError("msgpack_unsupported", "integer beyond 64 bits")
    elif value >= -(1 << 7):
        out.extend(struct.pack(">Bb", 0xD0, value))
    elif value >= -(1 << 15):
        out.extend(struct.pack(">Bh", 0xD1, value))
    elif value >= -(1 << 31):
        out.extend(struct.pack(">Bi", 0xD2, value))
    elif value >= -(1 << 63):
        out.extend(struct.pack(">Bq", 0xD3, value))
    else:
        raise ProtocolError("msgpack_unsupported", "integer beyond 64 bits")


def _pack_length(out: bytearray, length: int, fix: "int | None", tag8: "int | None", tag16: int, tag32: int) -> None:
    if fix is not None and length < 16:
        out.append(fix | length)
    elif tag8 is not None and length < 1 << 8:
        out.append(tag8)
        out.append(length)
    elif length < 1 << 16:
        out.extend(struct.pack(">BH", tag16, length))
    else:
        out.extend(struct.pack(">BI", tag32, length))


def unpack(data: bytes) -> "int | None | bytes | list[object]":
    """Decode one value that fills `data` exactly. Raises ProtocolError `msgpack_…` and nothing else."""
    value, end = _unpack_from(data, 0, 0)
    if end != len(data):
        raise ProtocolError("msgpack_trailing_bytes", "%d bytes after the value" % (len(data) - end))
    return value


_INTEGERS = {
    0xCC: (">B", 1),
    0xCD: (">H", 2),
    0xCE: (">I", 4),
    0xCF: (">Q", 8),
    0xD0: (">b", 1),
    0xD1: (">h", 2),
    0xD2: (">i", 4),
    0xD3: (">q", 8),
}
_BYTES = {0xC4: (">B", 1), 0xC5: (">H", 2), 0xC6: (">I", 4)}
_ARRAYS = {0xDC: (">H", 2), 0xDD: (">I", 4)}


def _unpack_from(data: bytes, at: int, depth: int) -> "tuple[int | None | bytes | list[object], int]":
    if at >= len(data):
        raise ProtocolError("msgpack_truncated")
    tag = data[at]
    at += 1
    if tag < 0x80:
        return tag, at
    if tag >= 0xE0:
        return tag - 0x100, at
    if tag == 0xC0:
        return None, at
    if tag in _INTEGERS:
        return _unpack_number(data, at, _INTEGERS[tag])
    if tag in _BYTES:
        length, at = _unpack_number(data, at, _BYTES[tag])
        if length > len(data) - at:
            raise ProtocolError("msgpack_truncated")
        return bytes(data[at : at + length]), at + length
    if 0x90 <= tag < 0xA0 or tag in _ARRAYS:
        if depth >= DEPTH_MAX:
            raise ProtocolError("msgpack_too_deep")
        if tag in _ARRAYS:
            length, at = _unpack_number(data, at, _ARRAYS[tag])
        else:
            length = tag & 0x0F
        if length > len(data) - at:  # each element takes a byte at least: a lying length costs no memory
            raise ProtocolError("msgpack_truncated")
        items: "list[object]" = []
        for _ in range(length):
            item, at = _unpack_from(data, at, depth + 1)
            items.append(item)
        return items, at
    raise ProtocolError("msgpack_unsupported", "tag 0x%02x" % tag)


def _unpack_number(data: bytes, at: int, form: "tuple[str, int]") -> "tuple[int, int]":
    pattern, size = form
    if size > len(data) - at:
        raise ProtocolError("msgpack_truncated")
    value: int = struct.unpack(pattern, data[at : at + size])[0]
    return value, at + size
