"""Makes dogecoin_messages.json: signed messages that Dogecoin Core's verifymessage takes, and some that nobody may.

Signed with noble's arithmetic, by the Node.js of the environment, over hashes laid down here; the two reference
signatures are by Dogecoin's Go library. From the top of the repository: python -m tests.hub.auth.make_dogecoin_messages
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import base58

from tests.hub.auth.siws.wallet_standard import Judge, running_judge

FILE = Path(__file__).with_name("dogecoin_messages.json")
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
FILLING = b"much energy "
MAGIC = b"\x19Dogecoin Signed Message:\n"

REFERENCE_ADDRESS = "DAi1FPRWa1ELPKu9Zk8iY5jedQaFu76LaB"
REFERENCE_DIGEST = "245ff249ae25665691cc9c9912026f473048988709a8d8d49275c7a06b172cce"
REFERENCE = [
    (
        REFERENCE_DIGEST.encode(),
        "HyzGIk76Ck3G8uE+Q4UscrK8MR3dLYELJ43055WEMxbVenRpv6k0nlMlJGSboxWzkEdD7+PBlwjFwIpC2so5EyI=",
    ),
    (
        bytes.fromhex(REFERENCE_DIGEST),
        "IPGBIodR1kGEVBKn5B3hbMf7jXdZk4CcIqIpRXG5yMJWCWZV0sixW+fQEpmeHSZya922RFQveGoqK9Fck2MBESc=",
    ),
]

Case = dict[str, Any]


def hash_of(message: bytes) -> bytes:
    """What is signed."""
    length = len(message)
    if length < 253:
        prefix = length.to_bytes(1, "little")
    elif length < 65_536:
        prefix = b"\xfd" + length.to_bytes(2, "little")
    else:
        prefix = b"\xfe" + length.to_bytes(4, "little")
    return hashlib.sha256(hashlib.sha256(MAGIC + prefix + message).digest()).digest()


def sign(judge: Judge, name: str, digest: bytes, compressed: bool) -> tuple[bytes, str]:
    """Signature and address of a key that comes from the name."""
    private_key = hashlib.sha256(name.encode()).digest()
    question = {
        "hash": base64.b64encode(digest).decode(),
        "private_key": base64.b64encode(private_key).decode(),
        "compressed": compressed,
    }
    (answer,) = judge.ask("sign", [question])
    address = base58.b58encode_check(b"\x1e" + bytes.fromhex(answer["key_hash"])).decode()
    return base64.b64decode(answer["signature"]), address


def cases() -> list[Case]:
    """All cases."""
    made = [
        case(f"reference {len(message)}", REFERENCE_ADDRESS, message, base64.b64decode(signature), True)
        for message, signature in REFERENCE
    ]
    with running_judge() as judge:
        for length in (0, 1, 31, 252, 253, 254, 1_000, 65_535, 65_536):
            for compressed in (True, False):
                message = (FILLING * length)[:length]
                name = f"{length} bytes, {'compressed' if compressed else 'uncompressed'}"
                signature, address = sign(judge, name, hash_of(message), compressed)
                made.append(case(name, address, message, signature, True))
        made += refused(judge)
    return made


def refused(judge: Judge) -> list[Case]:
    """What is not a signature of this address over this message, or not the one form of it."""
    message = b"much energy"
    signature, address = sign(judge, "a wallet", hash_of(message), True)
    uncompressed, _ = sign(judge, "a wallet", hash_of(message), False)
    _, other = sign(judge, "another wallet", hash_of(message), True)
    bitcoin = hashlib.sha256(hashlib.sha256(b"\x18Bitcoin Signed Message:\n\x0bmuch energy").digest()).digest()
    plain = hashlib.sha256(message).digest()
    header, r, s = signature[:1], signature[1:33], signature[33:]
    high = (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")
    variants = {
        "the larger s": bytes([27 + 4 + (header[0] - 27 - 4 ^ 1)]) + r + high,
        "the larger s under the same header": header + r + high,
        "for the address of the uncompressed key": uncompressed,
        "another of the four keys": bytes([27 + 4 + (header[0] - 27 - 4 ^ 1)]) + r + s,
        "header below": bytes([header[0] - 8]) + r + s,
        "header of a witness address": bytes([header[0] + 8]) + r + s,
        "header 0": b"\x00" + r + s,
        "header 255": b"\xff" + r + s,
        "no r": header + bytes(32) + s,
        "no s": header + r + bytes(32),
        "r is the order": header + ORDER.to_bytes(32, "big") + s,
        "s is the order": header + r + ORDER.to_bytes(32, "big"),
        "x beyond the field": bytes([27 + 4 + 2]) + r + s,
        "a byte less": signature[:-1],
        "a byte more": signature + b"\x00",
        "nothing": b"",
        "another bit": signature[:40] + bytes([signature[40] ^ 1]) + signature[41:],
        "with Bitcoin's magic": sign(judge, "a wallet", bitcoin, True)[0],
        "without magic": sign(judge, "a wallet", plain, True)[0],
    }
    return [case(name, address, message, each, False) for name, each in variants.items()] + [
        case("another message", address, message + b".", signature, False),
        case("another address", other, message, signature, False),
    ]


def case(name: str, address: str, message: bytes, signature: bytes, valid: bool) -> Case:
    """One line of the file."""
    return {
        "name": name,
        "address": address,
        "message": message.hex() if len(message) < 100 else {"repeated": FILLING.decode(), "length": len(message)},
        "hash": hash_of(message).hex(),
        "signature": base64.b64encode(signature).decode(),
        "valid": valid,
    }


if __name__ == "__main__":
    FILE.write_text("[\n" + ",\n".join(map(json.dumps, cases())) + "\n]\n")
