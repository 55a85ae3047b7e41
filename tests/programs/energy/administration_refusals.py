"""Beginnings, settings and pauses that must not be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tests.programs.energy import calls
from tests.programs.energy.calls import DATA_BYTES, Call, places_of
from tests.programs.energy.community import Community, must
from tests.programs.energy.ledger import LOADER, keypair, program_data_of, set_upgrade_authority
from tests.programs.energy.refusals import EMMY, Act, Case, renumbered
from tests.programs.energy.token_2022 import TOKEN

STRANGER, HUB = keypair("stranger"), keypair("hub")
ELSEWHERE = keypair("elsewhere").pubkey()


def _begun(change: Callable[[Community, Call], Call]) -> Callable[[Community], Sequence[Act]]:
    return lambda community: [change(community, community.initialize())]


def _same_issuer(_: Community, call: Call) -> Call:
    data = bytearray(call.data)
    data[72:104] = data[40:72]
    return call.with_data(bytes(data))


def _given_away(to_nobody: bool) -> Callable[[Community, Call], Call]:
    def change(community: Community, call: Call) -> Call:
        successor = None if to_nobody else EMMY.pubkey()
        handed = set_upgrade_authority(community.program, community.keys.authority.pubkey(), successor)
        must(community.send([handed]))
        return call

    return change


def _copied_program_data(community: Community, call: Call) -> Call:
    """A stranger's own program data, which names him."""
    data = bytearray(community.ledger.data(program_data_of(community.program)))
    data[13:45] = bytes(STRANGER.pubkey())
    community.ledger.put(ELSEWHERE, bytes(data), LOADER)
    return call.with_account("program_data", ELSEWHERE).with_account("authority", STRANGER.pubkey())


def _mint(change: Callable[[bytearray], None], owner: str = "") -> Callable[[Community, Call], Call]:
    def rewrite(community: Community, call: Call) -> Call:
        account = community.ledger.find(community.mint)
        assert account is not None
        data = bytearray(account.data)
        change(data)
        community.ledger.put(community.mint, bytes(data), TOKEN if owner else account.owner)
        return call

    return rewrite


def _write(at: int, value: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[at : at + len(value)] = value

    return change


def _shapes() -> Iterator[Case]:
    for count in range(len(places_of(calls.INITIALIZE))):
        yield Case(f"initialize, {count} accounts", "accounts_missing",
                   _begun(lambda _, call, count=count: call.first(count)))  # type: ignore[misc]  # fmt: skip
    for length in (0, DATA_BYTES[calls.INITIALIZE] - 1, DATA_BYTES[calls.INITIALIZE] + 1):
        yield Case(
            f"initialize, {length} bytes of data", "instruction_malformed",
            _begun(lambda _, call, length=length: call.with_data(call.data[:length].ljust(length, b"\0"))),  # type: ignore[misc]
        )  # fmt: skip


def _twice(community: Community, call: Call) -> Call:
    must(community.send([call]))
    return call


INITIALIZE_CASES: list[Case] = [
    *_shapes(),
    Case("initialize unsigned", "signer_missing", _begun(lambda _, call: call.unsigned("authority"))),
    Case("initialize by a stranger", "not_the_upgrade_authority",
         _begun(lambda _, call: call.with_account("authority", STRANGER.pubkey()))),
    Case("initialize by the hub", "not_the_upgrade_authority",
         _begun(lambda _, call: call.with_account("authority", HUB.pubkey()))),
    Case("initialize by who was the upgrade authority", "not_the_upgrade_authority", _begun(_given_away(False))),
    Case("initialize a program that nobody may upgrade", "not_the_upgrade_authority", _begun(_given_away(True))),
    Case("initialize by a stranger's program data", "account_address", _begun(_copied_program_data)),
    Case("initialize by the program itself for its data", "account_address",
         _begun(lambda community, call: call.with_account("program_data", community.program))),
    Case("initialize twice", "already_exists", _begun(_twice)),
    Case("initialize elsewhere", "account_address", _begun(lambda _, call: call.with_account("config", ELSEWHERE))),
    Case("initialize, config read-only", "account_not_writable", _begun(lambda _, call: call.read_only("config"))),
    Case("initialize, authority read-only", "account_not_writable",
         _begun(lambda _, call: call.read_only("authority"))),
    Case("initialize, another system", "program_differs", _begun(lambda _, call: call.with_account("system", TOKEN))),
    Case("validator is issuer", "validator_is_issuer", _begun(_same_issuer)),
    Case("no mint", "mint_unacceptable", _begun(lambda _, call: call.with_account("grid_mint", ELSEWHERE))),
    Case("Config for a mint", "mint_unacceptable",
         _begun(lambda community, call: call.with_account("grid_mint", community.config))),
    Case("a mint of another program, the same bytes", "mint_unacceptable", _begun(_mint(_write(0, b""), "token"))),
    Case("a mint that is not initialized", "mint_unacceptable", _begun(_mint(_write(45, b"\0")))),
    Case("a mint without authority", "mint_unacceptable", _begun(_mint(_write(0, b"\0")))),
    Case("a token account for a mint", "mint_unacceptable", _begun(_mint(_write(165, b"\2")))),
    Case("a mint cut short", "mint_unacceptable", _begun(_mint(lambda data: data.__delitem__(slice(81, None))))),
    Case("a mint cut in its filling", "mint_unacceptable",
         _begun(_mint(lambda data: data.__delitem__(slice(165, None))))),
    *(Case(f"a mint with extension {kind}", "mint_unacceptable", _begun(_mint(_write(166, bytes([kind, 0])))))
      for kind in (1, 3, 4, 6, 9, 10, 12, 14, 16, 20, 21, 22, 23, 24, 25, 26, 255)),
]  # fmt: skip
"""In a ledger where the program is deployed and not initialized."""


def _replaced(community: Community) -> Sequence[Act]:
    must(community.send([community.configure(new_admin=EMMY)]))
    return [community.configure()]


CONFIGURE_CASES: list[Case] = [
    Case("configure by the hub", "not_the_admin", lambda community: [community.configure(HUB)]),
    Case("configure, validator is issuer", "validator_is_issuer",
         lambda community: [community.configure(validator=keypair("issuer").pubkey())]),
    Case("configure by who was admin", "not_the_admin", _replaced),
    Case("another signs for the new admin", "not_the_admin",
         lambda community: [community.configure(new_admin=EMMY).with_account("new_admin", STRANGER.pubkey())]),
    Case("the present admin signs for the new one", "not_the_admin", lambda community: [
        community.configure(new_admin=EMMY).with_account("new_admin", community.keys.authority.pubkey())]),
]  # fmt: skip


def _paused(acts: Callable[[Community], Sequence[Act]]) -> Callable[[Community], Sequence[Act]]:
    def arrange(community: Community) -> Sequence[Act]:
        must(community.send([community.pause(1, HUB)]))
        return acts(community)

    return arrange


PAUSE_CASES: list[Case] = [
    Case("pause by a stranger", "not_the_admin", lambda community: [community.pause(1, STRANGER)]),
    Case("resume by the hub", "not_the_admin", _paused(lambda community: [community.pause(0, HUB)])),
    Case("resume by a stranger", "not_the_admin", _paused(lambda community: [community.pause(0, STRANGER)])),
    Case("pause twice", "state_unchanged", _paused(lambda community: [community.pause(1)])),
    Case("resume what runs", "state_unchanged", lambda community: [community.pause(0)]),
    *(Case(f"pause to {state}", "state_unknown", lambda community, state=state: [community.pause(state)])  # type: ignore[misc]
      for state in (2, 255)),
    Case("instruction 200 in place of pause", "instruction_unknown",
         lambda community: [renumbered(community.pause(1), 200)]),
]  # fmt: skip

CASES = [*CONFIGURE_CASES, *PAUSE_CASES]
