"""Members, meters and keys that must not be registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from tests.programs.energy import calls, layout
from tests.programs.energy.community import (
    ADA,
    CAPACITY_W_MAX,
    OTTO,
    REGISTER_STEP_WH,
    REGISTER_STEP_WH_MAX,
    Community,
    Device,
    must,
)
from tests.programs.energy.ledger import START_UNIX_S, keypair
from tests.programs.energy.minting_refusals import COMPUTE_BUDGET, WH_MAX, signature_cases
from tests.programs.energy.refusals import EMMY, NEW, NEXT_KEY, Act, Case, changed, registering, rotating
from tests.programs.energy.signing import INTERVAL_S, Signed, Statement, ed25519, sign
from tests.programs.energy.token_2022 import TOKEN, token_account

Arrange = Callable[[Community], Sequence[Act]]
STRANGER, HUB = keypair("stranger"), keypair("hub")

USER_CASES: list[Case] = [
    *(Case(f"a user of kind {kind}", "kind_unknown", lambda community, kind=kind: [community.register_user(EMMY, kind)])  # type: ignore[misc]
      for kind in (0, 3, 255)),
    Case("a user twice", "already_exists", lambda community: [community.register_user(ADA.owner)]),
    Case("a user as another kind", "already_exists", lambda community: [
        community.register_user(ADA.owner, layout.CONSUMER)]),
]  # fmt: skip


def _meter_id(name: bytes) -> dict[str, object]:
    return {"meter_id": name.ljust(32, b"\0")}


MALFORMED_STATEMENTS: dict[str, dict[str, object]] = {
    "of protocol 0": {"magic": b"CWE0"},
    "that is a seal": {"magic": b"CWS1"},
    "of a meter without a name": _meter_id(b""),
    "of a meter in capitals": _meter_id(b"Ada"),
    "of a meter with a zero inside": _meter_id(b"a\0b"),
    "of a meter with a hyphen before": _meter_id(b"-a"),
    "of a meter with a hyphen after": _meter_id(b"a-"),
    "of a meter named as the hub": _meter_id(b"hub-control"),
    "of a meter beyond ASCII": _meter_id("ädä".encode()),
    "of a meter with a dot": _meter_id(b"a.b"),
    "of kind 0": {"kind": 0},
    "of kind 5": {"kind": 5},
    "of measurement 0": {"measurement": 0},
    "of measurement 3": {"measurement": 3},
    "with unknown flags": {"flags": 4},
    "of epoch 0": {"key_epoch": 0},
    "of an epoch of 32 bits": {"key_epoch": 2**31},
    "with a production beyond 53 bits": {"production_wh": WH_MAX + 1},
    "with a consumption beyond 53 bits": {"consumption_wh": WH_MAX + 1},
    "with more surplus than production": {"surplus_wh": 5_001},
    "before 2020": {"valid_from_unix_s": 1_577_836_799},
    "after 2100": {"valid_from_unix_s": 4_102_444_801},
    "before 1970": {"valid_from_unix_s": -1},
}


def _stated(message: Callable[[Community], bytes]) -> Arrange:
    return lambda community: [ed25519(sign(NEW.key, message(community))), community.register_meter(NEW)]


def _taken(device: Device, **statement: object) -> Arrange:
    """A second meter under an id or a key that is Ada's roof's, or was."""
    return lambda community: registering(community, device, **statement)


def _with_limits(capacity_w: int, register_step_wh: int) -> Arrange:
    def arrange(community: Community) -> Sequence[Act]:
        return [registering(community)[0], community.register_meter(NEW, capacity_w, register_step_wh)]

    return arrange


def _inactive(community: Community) -> Sequence[Act]:
    """No instruction of today makes a User anything but active; one of tomorrow may."""
    key = community.addresses.user(ADA.owner.pubkey())
    user = replace(community.read_user(ADA.owner), state=2)
    community.ledger.put(key, user.encode(), community.program)
    return registering(community)


def _once_known(community: Community) -> Sequence[Act]:
    """The key that Ada's roof had before this one."""
    must(community.rotate_once(ADA, NEXT_KEY))
    return registering(community, replace(NEW, key=ADA.key))


def _unenrolled(community: Community) -> tuple[Signed, Act]:
    return sign(NEW.key, community.statement(NEW).encode()), community.register_meter(NEW)


def _grid_account(change: Callable[[Community], Pubkey]) -> Arrange:
    def arrange(community: Community) -> Sequence[Act]:
        acts = registering(community)
        call = community.register_meter(NEW).with_account("grid_account", change(community))
        return [acts[0], call]

    return arrange


METER_CASES: list[Case] = [
    *signature_cases("registering", _unenrolled),
    *(Case(f"a statement {what}", "statement_malformed",
           lambda community, changes=changes: registering(community, **changes))  # type: ignore[misc]
      for what, changes in MALFORMED_STATEMENTS.items()),
    Case("a first key that replaces a meter", "statement_malformed", lambda community: registering(community, flags=2)),
    Case("a first key with a predecessor", "statement_malformed",
         lambda community: registering(community, last_seal_hash=b"\1" * 32)),
    Case("a statement of more than a year ago", "statement_too_old",
         lambda community: registering(community, valid_from_unix_s=START_UNIX_S - 366 * 86_400 - 1)),
    Case("a statement and a byte more", "statement_malformed",
         _stated(lambda community: community.statement(NEW).encode() + b"\0")),
    Case("a statement and a byte less", "statement_malformed",
         _stated(lambda community: community.statement(NEW).encode()[:-1])),
    Case("a seal for a statement", "statement_malformed", _stated(lambda community: community.seal(ADA).encode())),
    Case("a statement of another community", "domain_differs",
         lambda community: registering(community, domain=b"another!")),
    Case("a statement that names another key", "key_differs",
         lambda community: registering(community, public_key=bytes(STRANGER.pubkey()))),
    Case("Ada signs, Otto is the owner", "not_the_owner",
         lambda community: registering(community, owner=bytes(OTTO.owner.pubkey()))),
    Case("a second epoch", "epoch_differs", lambda community: registering(community, key_epoch=2)),
    Case("nobody's meter", "account_not_ours", lambda community: registering(community, replace(NEW, owner=EMMY))),
    Case("a user who is not active", "user_not_active", _inactive),
    Case("the same meter twice", "already_exists", _taken(ADA)),
    Case("the same meter under a second owner", "already_exists",
         _taken(Device(ADA.meter_id, OTTO.owner, keypair("a third meter")))),
    Case("the same meter with another key", "already_exists", _taken(replace(ADA, key=keypair("a third meter")))),
    Case("one key on two meters", "already_exists", _taken(replace(NEW, key=ADA.key))),
    Case("one key on two owners' meters", "already_exists", _taken(Device("otto-two", OTTO.owner, ADA.key))),
    Case("a key that was another meter's", "already_exists", _once_known),
    Case("no capacity", "capacity_out_of_range", _with_limits(0, REGISTER_STEP_WH)),
    Case("a watt too much", "capacity_out_of_range", _with_limits(CAPACITY_W_MAX + 1, REGISTER_STEP_WH)),
    Case("all watts", "capacity_out_of_range", _with_limits(2**64 - 1, REGISTER_STEP_WH)),
    Case("no register step", "register_step_out_of_range", _with_limits(1, 0)),
    Case("a step too much", "register_step_out_of_range", _with_limits(1, REGISTER_STEP_WH_MAX + 1)),
    Case("the account of Otto", "grid_account_differs",
         _grid_account(lambda community: community.grid_account(OTTO.owner))),
    Case("an account of another token program", "grid_account_differs",
         _grid_account(lambda community: token_account(ADA.owner.pubkey(), community.mint, TOKEN))),
    Case("an account of another mint", "grid_account_differs",
         _grid_account(lambda community: token_account(ADA.owner.pubkey(), keypair("another mint").pubkey()))),
    Case("another meter's address", "account_address",
         lambda community: [registering(community)[0], community.register_meter(NEW).with_account(
             "meter", community.addresses.meter("ada-third"))]),
    Case("any payer instead of the hub", "not_the_hub",
         changed(calls.REGISTER_METER, lambda _, call: call.with_account("hub", STRANGER.pubkey()))),
    Case("the owner instead of the hub", "not_the_hub",
         changed(calls.REGISTER_METER, lambda _, call: call.with_account("hub", ADA.owner.pubkey()))),
]  # fmt: skip


def _statement(community: Community, **changes: object) -> Statement:
    return community.rotation(ADA, NEXT_KEY, **changes)


def _endorsed(endorse: Callable[[bytes], object]) -> Arrange:
    """The new key's statement, and what is given as its endorsement."""

    def arrange(community: Community) -> Sequence[Act]:
        message = _statement(community).encode()
        second = endorse(message)
        assert isinstance(second, list)
        return [ed25519(sign(NEXT_KEY, message)), *second, community.rotate(ADA, NEXT_KEY)]

    return arrange


def _reversed(community: Community) -> Sequence[Act]:
    first, second, call = rotating(community)
    return [second, first, call]


def _deactivated(community: Community) -> Sequence[Act]:
    must(community.send([community.deactivate(ADA)]))
    return rotating(community)


def _beyond(name: str, more: int) -> Arrange:
    def arrange(community: Community) -> Sequence[Act]:
        meter = community.read_meter(ADA.meter_id)
        now = meter.closed_until_unix_s if name == "valid_from_unix_s" else getattr(meter, name)
        return rotating(community, **{name: now + more})

    return arrange


def _known_key(community: Community) -> Sequence[Act]:
    message = community.rotation(ADA, OTTO.key).encode()
    return [ed25519(sign(OTTO.key, message)), ed25519(sign(ADA.key, message)), community.rotate(ADA, OTTO.key)]


def _own_key(community: Community) -> Sequence[Act]:
    message = community.rotation(ADA, ADA.key).encode()
    signed = ed25519(sign(ADA.key, message))
    return [signed, signed, community.rotate(ADA, ADA.key)]


def _again(community: Community) -> Sequence[Act]:
    acts = rotating(community)
    must(community.send(acts))
    return acts


_SOMETHING_ELSE = Instruction(COMPUTE_BUDGET, b"\x02\x40\x0d\x03\0", [])

ROTATION_CASES: list[Case] = [
    *(Case(f"rotating by a statement {what}", "statement_malformed",
           lambda community, changes=changes: rotating(community, **changes))  # type: ignore[misc]
      for what, changes in MALFORMED_STATEMENTS.items()),
    Case("rotating, nothing signed", "signature_missing", lambda community: [community.rotate(ADA, NEXT_KEY)]),
    Case("rotating, the endorsement alone", "signature_missing", lambda community: rotating(community)[1:]),
    Case("rotating, the statement alone after something else", "endorsement_missing", _endorsed(
        lambda _: [_SOMETHING_ELSE])),
    Case("rotating, the statement signed twice at once", "signature_malformed", lambda community: [
        ed25519(*[sign(NEXT_KEY, _statement(community).encode())] * 2),
        ed25519(sign(ADA.key, _statement(community).encode())), community.rotate(ADA, NEXT_KEY)]),
    Case("endorsed twice at once", "signature_malformed",
         _endorsed(lambda message: [ed25519(*[sign(ADA.key, message)] * 2)])),
    *(Case(f"endorsed by {who}", "endorsement_missing",
           _endorsed(lambda message, key=key: [ed25519(sign(key, message))]))  # type: ignore[misc]
      for who, key in {"a stranger": STRANGER, "the new key": NEXT_KEY, "the hub": HUB, "Otto": OTTO.owner,
                       "Otto's meter": OTTO.key}.items()),
    Case("endorsed in other words", "message_differs",
         _endorsed(lambda message: [ed25519(sign(ADA.key, message[:-1] + b"\0"))])),
    Case("endorsed in fewer words", "message_differs",
         _endorsed(lambda message: [ed25519(sign(ADA.key, message[:-1]))])),
    Case("endorsed in more words", "message_differs",
         _endorsed(lambda message: [ed25519(sign(ADA.key, message + b"\0"))])),
    Case("endorsed first", "key_differs", _reversed),
    Case("rotating to a key that did not sign", "key_differs",
         lambda community: rotating(community, public_key=bytes(STRANGER.pubkey()))),
    Case("rotating elsewhere", "domain_differs", lambda community: rotating(community, domain=b"another!")),
    Case("rotating Otto's meter by Ada's account", "account_address",
         lambda community: rotating(community, meter_id=OTTO.meter_id.encode().ljust(32, b"\0"))),
    Case("rotating to another owner", "not_the_owner",
         lambda community: rotating(community, owner=bytes(OTTO.owner.pubkey()))),
    Case("rotating to another kind", "kind_unknown", lambda community: rotating(community, kind=layout.WIND)),
    Case("rotating to another measurement", "kind_unknown", lambda community: rotating(community, measurement=2)),
    Case("rotating to the same epoch", "epoch_differs", lambda community: rotating(community, key_epoch=1)),
    Case("rotating over an epoch", "epoch_differs", lambda community: rotating(community, key_epoch=3)),
    Case("the same rotation again", "endorsement_missing", _again),
    Case("rotating to Otto's key", "already_exists", _known_key),
    Case("rotating to the same key", "already_exists", _own_key),
    Case("rotating a deactivated meter", "meter_deactivated", _deactivated),
    Case("rotating to more production", "counters_beyond", _beyond("production_wh", 1)),
    Case("rotating to more consumption", "counters_beyond", _beyond("consumption_wh", 1)),
    Case("rotating to more surplus", "counters_beyond", _beyond("surplus_wh", 1)),
    Case("rotating to a later quarter", "counters_beyond", _beyond("valid_from_unix_s", INTERVAL_S)),
    Case("rotating to another key's account", "account_address",
         changed(calls.ROTATE_METER_KEY, lambda community, call: call.with_account(
             "meter_key", community.addresses.meter_key(STRANGER.pubkey())))),
]  # fmt: skip


def _in_state(state: int, acts: Arrange) -> Arrange:
    def arrange(community: Community) -> Sequence[Act]:
        gone = community.deactivate(ADA) if state == layout.DEACTIVATED else community.set_status(ADA, state)
        must(community.send([gone]))
        return acts(community)

    return arrange


STATUS_CASES: list[Case] = [
    *(Case(f"status {state}", "state_unknown", lambda community, state=state: [community.set_status(ADA, state)])  # type: ignore[misc]
      for state in (0, 3, 255)),
    Case("active again", "state_unchanged", lambda community: [community.set_status(ADA, layout.ACTIVE)]),
    Case("suspended again", "state_unchanged",
         _in_state(layout.SUSPENDED, lambda community: [community.set_status(ADA, layout.SUSPENDED)])),
    Case("active after deactivation", "meter_deactivated",
         _in_state(layout.DEACTIVATED, lambda community: [community.set_status(ADA, layout.ACTIVE)])),
    Case("suspended after deactivation", "meter_deactivated",
         _in_state(layout.DEACTIVATED, lambda community: [community.set_status(ADA, layout.SUSPENDED)])),
    Case("the owner suspends", "not_the_hub",
         changed(calls.SET_METER_STATUS, lambda _, call: call.with_account("hub", ADA.owner.pubkey()))),
    Case("deactivated twice", "meter_deactivated",
         _in_state(layout.DEACTIVATED, lambda community: [community.deactivate(ADA)])),
    Case("deactivated by Otto", "not_the_owner", lambda community: [community.deactivate(ADA, OTTO.owner)]),
    Case("deactivated by the meter", "not_the_owner", lambda community: [community.deactivate(ADA, ADA.key)]),
    Case("deactivated by the admin", "not_the_owner",
         lambda community: [community.deactivate(ADA, keypair("authority"))]),
]  # fmt: skip

CASES = [*USER_CASES, *METER_CASES, *ROTATION_CASES, *STATUS_CASES]
