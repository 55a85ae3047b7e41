"""One refusal: what is sent to a community of two meters, and the number with which it must be refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from solders.instruction import Instruction

from tests.programs.energy import calls, layout
from tests.programs.energy.calls import Call
from tests.programs.energy.community import ADA, Community, Device
from tests.programs.energy.error_numbers import NAMES
from tests.programs.energy.ledger import keypair
from tests.programs.energy.signing import Signed, ed25519, sign

Act = Instruction | Call
EMMY, LISE = keypair("emmy"), keypair("lise")
"""Emmy is nobody yet."""
NEXT_KEY = keypair("the next key")
NEW = Device("ada-second", ADA.owner, keypair("a new meter"))
"""A meter of Ada's that nobody has registered."""


@dataclass(frozen=True)
class Case:
    """`arrange` brings the community where it must be and says what is then sent; its last act is refused."""

    title: str
    error: str
    arrange: Callable[[Community], Sequence[Act]]

    def __str__(self) -> str:
        return f"{self.title}: {self.error}"


def check(community: Community, case: Case) -> None:
    """The last act of the transaction is refused with exactly this number; Ledger.send checks that nothing changed."""
    acts = case.arrange(community)
    outcome = community.send(acts)
    found = NAMES.get(outcome.custom or 0, outcome.error)
    assert (found, outcome.index) == (case.error, len(acts) - 1), outcome.logs


# -- what an honest hub sends, in parts


def enrolment(community: Community, device: Device = NEW, **changes: object) -> Signed:
    return sign(device.key, community.statement(device, **changes).encode())


def registering(community: Community, device: Device = NEW, **changes: object) -> list[Act]:
    return [ed25519(enrolment(community, device, **changes)), community.register_meter(device)]


def rotating(community: Community, **changes: object) -> list[Act]:
    message = community.rotation(ADA, NEXT_KEY, **changes).encode()
    return [ed25519(sign(NEXT_KEY, message)), ed25519(sign(ADA.key, message)), community.rotate(ADA, NEXT_KEY)]


def submitting(community: Community, *delta: int, **changes: object) -> list[Act]:
    return [ed25519(community.sealed(ADA, *delta, **changes)), community.submit(ADA)]


def writing_off(community: Community, written_off_wh: tuple[int, int], *delta: int, **changes: object) -> list[Act]:
    signed = ed25519(community.sealed(ADA, *delta, **changes))
    return [signed, community.write_off(ADA, *written_off_wh)]


def configuring(community: Community) -> list[Act]:
    return [community.configure(new_admin=EMMY)]


HONEST: dict[int, Callable[[Community], list[Act]]] = {
    calls.REGISTER_USER: lambda community: [community.register_user(EMMY)],
    calls.REGISTER_METER: registering,
    calls.ROTATE_METER_KEY: rotating,
    calls.SUBMIT_READING: submitting,
    calls.SETTLE: lambda community: [community.settle(ADA)],
    calls.WRITE_OFF: lambda community: writing_off(community, (1_000, 900)),
    calls.SET_METER_STATUS: lambda community: [community.set_status(ADA, layout.SUSPENDED)],
    calls.DEACTIVATE_METER: lambda community: [community.deactivate(ADA)],
    calls.PAUSE: lambda community: [community.pause(1)],
    calls.CONFIGURE: configuring,
}
"""What is accepted in a community as it begins, for each instruction but `initialize`; the call comes last."""

NAMES_OF_CALLS = {
    calls.INITIALIZE: "initialize",
    calls.REGISTER_USER: "register_user",
    calls.REGISTER_METER: "register_meter",
    calls.ROTATE_METER_KEY: "rotate_meter_key",
    calls.SUBMIT_READING: "submit_reading",
    calls.SETTLE: "settle_meter_balance",
    calls.WRITE_OFF: "write_off",
    calls.SET_METER_STATUS: "set_meter_status",
    calls.DEACTIVATE_METER: "deactivate_meter",
    calls.PAUSE: "pause",
    calls.CONFIGURE: "configure",
}


def last_call(acts: Sequence[Act]) -> Call:
    found = acts[-1]
    assert isinstance(found, Call)
    return found


def changed(number: int, change: Callable[[Community, Call], Call]) -> Callable[[Community], Sequence[Act]]:
    """The honest acts, their last one changed."""

    def arrange(community: Community) -> Sequence[Act]:
        acts = HONEST[number](community)
        return [*acts[:-1], change(community, last_call(acts))]

    return arrange


def renumbered(call: Call, number: int) -> Call:
    return replace(call, number=number)
