"""Every account of every instruction, wrong in every way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from solders.pubkey import Pubkey

from tests.programs.energy import calls
from tests.programs.energy.calls import DATA_BYTES, SYSTEM, Call, Place, places_of
from tests.programs.energy.community import OTTO, Community
from tests.programs.energy.ledger import keypair
from tests.programs.energy.refusals import HONEST, NAMES_OF_CALLS, Case, changed, renumbered

STRANGER = keypair("stranger").pubkey()
ELSEWHERE = keypair("elsewhere").pubkey()
OTHER_PROGRAM = keypair("another program").pubkey()

TAGS = {"config": b"CWCF", "user": b"CWUS", "meter": b"CWME", "meter_key": b"CWMK"}
MADE = {(calls.REGISTER_USER, "user"), (calls.REGISTER_METER, "meter"), (calls.REGISTER_METER, "meter_key"),
        (calls.ROTATE_METER_KEY, "meter_key")}  # fmt: skip
FIXED = ("ixs", "system", "token_2022")

WRONG_SIGNER = {
    (calls.REGISTER_USER, "hub"): "not_the_hub",
    (calls.REGISTER_USER, "wallet"): "account_address",
    (calls.REGISTER_METER, "hub"): "not_the_hub",
    (calls.REGISTER_METER, "owner"): "wallet_differs",
    (calls.ROTATE_METER_KEY, "hub"): "not_the_hub",
    (calls.SUBMIT_READING, "hub"): "not_the_hub",
    (calls.SETTLE, "hub"): "not_the_hub",
    (calls.WRITE_OFF, "hub"): "not_the_hub",
    (calls.SET_METER_STATUS, "hub"): "not_the_hub",
    (calls.DEACTIVATE_METER, "authority"): "not_the_owner",
    (calls.PAUSE, "authority"): "not_the_admin",
    (calls.CONFIGURE, "admin"): "not_the_admin",
    (calls.CONFIGURE, "new_admin"): "not_the_admin",
}
"""Somebody else signs where these should."""

OTHER_INSTANCE = {
    (calls.REGISTER_METER, "user"): "wallet_differs",
    (calls.ROTATE_METER_KEY, "meter"): "endorsement_missing",
    (calls.SUBMIT_READING, "meter"): "key_differs",
    (calls.SETTLE, "meter"): "grid_account_differs",
    (calls.WRITE_OFF, "meter"): "key_differs",
    (calls.DEACTIVATE_METER, "meter"): "wallet_differs",
    (calls.DEACTIVATE_METER, "user"): "wallet_differs",
}
"""Otto's genuine account where Ada's should be."""


def _copied(place: Place, owner: Pubkey | None = None) -> Callable[[Community, Call], Call]:
    """The same bytes at another address, owned by another program or even by ours."""

    def change(community: Community, call: Call) -> Call:
        community.ledger.put(ELSEWHERE, community.ledger.data(call.key(place.name)), owner or community.program)
        return call.with_account(place.name, ELSEWHERE)

    return change


def _rewritten(
    place: Place, rewrite: Callable[[bytes], bytes], owner: Pubkey | None = None
) -> Callable[[Community, Call], Call]:
    """Other bytes at the right address: what only a broken program could have written."""

    def change(community: Community, call: Call) -> Call:
        key = call.key(place.name)
        community.ledger.put(key, rewrite(community.ledger.data(key)), owner or community.program)
        return call

    return change


def _occupied(place: Place, data: bytes, owner: Pubkey) -> Callable[[Community, Call], Call]:
    """Something is where the account is to be made."""

    def change(community: Community, call: Call) -> Call:
        community.ledger.put(call.key(place.name), data, owner)
        return call

    return change


def _instead(place: Place, key: Callable[[Community], Pubkey]) -> Callable[[Community, Call], Call]:
    return lambda community, call: call.with_account(place.name, key(community), signs=False)


def _genuine(kind: str) -> Callable[[Community], Pubkey]:
    return {
        "config": lambda community: community.config,
        "user": lambda community: community.addresses.user(OTTO.owner.pubkey()),
        "meter": lambda community: community.addresses.meter(OTTO.meter_id),
        "meter_key": lambda community: community.addresses.meter_key(OTTO.key.pubkey()),
    }[kind]


def _look_alike_sysvar(community: Community, call: Call) -> Call:
    community.ledger.put(ELSEWHERE, b"\1\0" * 200, OTHER_PROGRAM)
    return call.with_account("ixs", ELSEWHERE)


def cases_of_place(number: int, place: Place) -> Iterator[Case]:
    name = f"{NAMES_OF_CALLS[number]}, {place.name}"

    def case(what: str, error: str, change: Callable[[Community, Call], Call]) -> Case:
        return Case(f"{name}, {what}", error, changed(number, change))

    if place.signs:
        yield case("unsigned", "signer_missing", lambda _, call: call.unsigned(place.name))
        yield case(
            "a stranger", WRONG_SIGNER[number, place.name], lambda _, call: call.with_account(place.name, STRANGER)
        )
    if place.written:
        yield case("read-only", "account_not_writable", lambda _, call: call.read_only(place.name))
    if place.name in FIXED:
        yield case("other", "program_differs", lambda _, call: call.with_account(place.name, STRANGER))
    if place.name == "ixs":
        yield case("a look-alike", "program_differs", _look_alike_sysvar)
    if place.name not in TAGS:
        return
    if (number, place.name) in MADE:
        yield case("underived", "account_address", _instead(place, lambda _: ELSEWHERE))
        yield case("of another seed", "account_address", _instead(place, _genuine("config")))
        yield case("another program's already", "already_exists", _occupied(place, b"", OTHER_PROGRAM))
        yield case("with data already", "already_exists", _occupied(place, b"\0", SYSTEM))
        return
    yield case("a look-alike of another program", "account_not_ours", _copied(place, OTHER_PROGRAM))
    yield case("given away", "account_not_ours", _rewritten(place, lambda data: data, OTHER_PROGRAM))
    yield case("not there", "account_not_ours", _instead(place, lambda _: ELSEWHERE))
    yield case("the same bytes elsewhere", "account_address", _copied(place))
    for version in (0, 2):
        yield case(
            f"of version {version}", "account_version",
            _rewritten(place, lambda data, version=version: data[:4] + bytes([version]) + data[5:]),  # type: ignore[misc]
        )  # fmt: skip
    yield case("one byte short", "account_type", _rewritten(place, lambda data: data[:-1]))
    yield case("one byte long", "account_type", _rewritten(place, lambda data: data + b"\0"))
    yield case("empty", "account_type", _rewritten(place, lambda _: b""))
    for kind, tag in TAGS.items():
        if kind != place.name:
            yield case(f"tagged as {kind}", "account_type", _rewritten(place, lambda data, tag=tag: tag + data[4:]))  # type: ignore[misc]
            yield case(f"a genuine {kind}", "account_type", _instead(place, _genuine(kind)))
    if (number, place.name) in OTHER_INSTANCE:
        yield case("Otto's", OTHER_INSTANCE[number, place.name], _instead(place, _genuine(place.name)))


def cases_of_shape(number: int) -> Iterator[Case]:
    """Accounts missing, data of another length."""
    name = NAMES_OF_CALLS[number]
    for count in range(len(places_of(number))):
        yield Case(
            f"{name}, {count} accounts", "accounts_missing",
            changed(number, lambda _, call, count=count: call.first(count)),  # type: ignore[misc]
        )  # fmt: skip
    for length in {0, DATA_BYTES[number] - 1, DATA_BYTES[number] + 1, DATA_BYTES[number] + 1000} - {
        -1,
        DATA_BYTES[number],
    }:
        if length >= 0:
            yield Case(
                f"{name}, {length} bytes of data", "instruction_malformed",
                changed(number, lambda _, call, length=length: call.with_data(call.data[:length].ljust(length, b"\0"))),  # type: ignore[misc]
            )  # fmt: skip


def _paused(number: int) -> Case:
    def arrange(community: Community) -> list[object]:
        acts = HONEST[number](community)
        assert community.send([community.pause(1)]).accepted
        return acts  # type: ignore[return-value]

    return Case(f"{NAMES_OF_CALLS[number]} while paused", "paused", arrange)  # type: ignore[arg-type]


def _unknown(number: int) -> Case:
    return Case(
        f"instruction {number}", "instruction_unknown",
        changed(calls.SETTLE, lambda _, call: renumbered(call, number)),
    )  # fmt: skip


STOPPED_BY_PAUSE = (
    calls.REGISTER_USER, calls.REGISTER_METER, calls.ROTATE_METER_KEY, calls.SUBMIT_READING, calls.SETTLE,
    calls.WRITE_OFF,
)  # fmt: skip

CASES: list[Case] = [
    *(case for number in HONEST for place in places_of(number) for case in cases_of_place(number, place)),
    *(case for number in HONEST for case in cases_of_shape(number)),
    *(_paused(number) for number in STOPPED_BY_PAUSE),
    *(_unknown(number) for number in (11, 12, 127, 255)),
]
