"""`commonwatt wallet`: what a wallet does on the chain, without a browser: be registered, register meters, be counted.

The hub hands out transactions that it has built and will pay for. Before one is signed it is read from its own bytes
(`wallet_transaction.py`) and shown; what is not exactly the expected act is refused. The program that may be given a
signature is the one that its owner names, never the one that the hub names.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Literal
from uuid import UUID, uuid4

import base58
import typer
from solders.pubkey import Pubkey

from commonwatt.access import SESSION_FILE, SESSION_FILE_VARIABLE, URL_VARIABLE, Access, open_client
from commonwatt.hub_client import CommandError, HubClient, path_of
from commonwatt.member_session import MemberSession
from commonwatt.member_wallet import Wallet
from commonwatt.terminal import clean, refusing, show, show_list
from commonwatt.wallet_rpc import GRID_DECIMALS, SOL_DECIMALS, Node, decimal
from commonwatt.wallet_transaction import Expected, Lines, read_transaction

PROGRAM = "commonwatt wallet"
PAUSE_S: Final = 0.5
"""Between two looks at how far a registration is."""
WAIT_S: Final = 180
UNKNOWN_STATUS: Final = 3
"""How the program ends when the end is not known yet; 1 is a refusal."""
INTERRUPTED_STATUS: Final = 130
WAITS, GOOD, BAD = ("planned", "awaiting_wallet", "open", "unknown"), "finalized", ("failed", "expired")
_LAPSED: Final = ("transaction_expired", "transaction_not_ours", "intent_not_awaiting")
"""Refusals after which the hub may have built another transaction, which is read anew."""
_TOLD: Final[Mapping[str, type | tuple[type, ...]]] = {
    "registration_id": str,
    "kind": str,
    "meter_id": (str, NoneType),
    "state": str,
    "program_id": str,
    "transaction": (dict, NoneType),
    "signature": (str, NoneType),
    "error_code": (str, NoneType),
    "error": (str, NoneType),
}
"""What a hub tells of a registration, as far as it matters here."""

_AWAY: Final = ("no_answer", "database_away")

Act = Literal["user.register", "meter.register"]
Answer = dict[str, Any]

app = typer.Typer(
    help="Your wallet on the chain: register it and your meters, sign, see what it holds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)

KeyFile = Annotated[Path, typer.Argument(metavar="FILE", help="As solana-keygen writes it, mode 0600.")]
WalletFile = Annotated[Path, typer.Option("--wallet", metavar="FILE", help="Sign with the key in this file.")]
Program = Annotated[
    str, typer.Option("--program", metavar="ADDRESS", help="The community's program; without it you are asked.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Sign what is expected without asking; needs --program.")]
WaitS = Annotated[int, typer.Option("--wait-s", min=0, help="How long to wait for the end.")]


@app.callback()
def root(
    context: typer.Context,
    url: Annotated[
        str, typer.Option(envvar=URL_VARIABLE, help="Address of the hub; the one you are signed in at unless given.")
    ] = "",
    session_file: Annotated[
        Path, typer.Option(envvar=SESSION_FILE_VARIABLE, help="Where `commonwatt member sign-in` left your session.")
    ] = SESSION_FILE,
    idempotency_key: Annotated[
        str, typer.Option(help="To repeat an invocation whose answer was lost; a new one unless given.")
    ] = "",
) -> None:
    """Your wallet on the chain: register it and your meters, sign, see what it holds."""
    session = MemberSession(session_file.expanduser())
    context.obj = Access(PROGRAM, url, None, session, idempotency_key or str(uuid4()))


@app.command()
def new(file: KeyFile) -> None:
    """Make a key in a new file and print its address."""
    with refusing(PROGRAM):
        typer.echo(Wallet.make(file).address)


@app.command("show")
def show_key(file: KeyFile) -> None:
    """Print the address of the key in a file."""
    with refusing(PROGRAM):
        typer.echo(Wallet.read(file).address)


@app.command()
def register(
    context: typer.Context, wallet_file: WalletFile, program: Program = "", yes: Yes = False, wait_s: WaitS = WAIT_S
) -> None:
    """Register your wallet on the chain, as the prosumer or consumer that you are; the hub pays."""
    with open_client(context) as hub:
        signer = _Signer(hub, Wallet.read(wallet_file), program, yes, wait_s)
        signer.run(hub.post("/me/registrations/user", {"wallet": signer.wallet.address}), "user.register", None)


@app.command()
def register_meter(
    context: typer.Context,
    meter_id: Annotated[str, typer.Argument(metavar="METER_ID")],
    wallet_file: WalletFile,
    program: Program = "",
    yes: Yes = False,
    wait_s: WaitS = WAIT_S,
) -> None:
    """Register a meter of yours on the chain, with the key it was enrolled with; the hub pays."""
    with open_client(context) as hub:
        signer = _Signer(hub, Wallet.read(wallet_file), program, yes, wait_s)
        signer.run(hub.post("/me/registrations/meter", {"meter_id": meter_id}), "meter.register", meter_id)


@app.command()
def sign(
    context: typer.Context,
    registration_id: Annotated[str, typer.Argument(metavar="REGISTRATION")],
    wallet_file: WalletFile,
    program: Program = "",
    yes: Yes = False,
    wait_s: WaitS = WAIT_S,
) -> None:
    """Sign a registration that was asked for elsewhere, in a browser say."""
    with open_client(context) as hub:
        signer = _Signer(hub, Wallet.read(wallet_file), program, yes, wait_s)
        asked = _told(hub.get(path_of("me", "registrations", registration_id)))
        act: Act
        act = "user.register" if asked["kind"] == "user.register" else "meter.register"
        signer.run(asked, act, asked["meter_id"])


@app.command()
def registrations(context: typer.Context) -> None:
    """What you asked to be registered on the chain, newest first."""
    with open_client(context) as hub:
        found = list(hub.each("/me/registrations", "registrations"))
    show(
        ("registration", "of", "state", "asked for", "transaction", "why not"),
        (
            (
                each["registration_id"],
                each["meter_id"] or each["wallet"],
                *(each[name] for name in ("state", "requested_at", "signature", "error_code")),
            )
            for each in found
        ),
    )


@app.command()
def balance(
    rpc: Annotated[str, typer.Option("--rpc", metavar="URL", help="A node of the chain.")],
    program: Annotated[str, typer.Option("--program", metavar="ADDRESS", help="The community's program.")],
    wallet_file: Annotated[
        Path | None, typer.Option("--wallet", metavar="FILE", help="Of the key in this file.")
    ] = None,
    address: Annotated[str, typer.Option(metavar="ADDRESS", help="Or of this wallet.")] = "",
) -> None:
    """The GRID and SOL of a wallet, as the chain has them; the hub is not asked."""
    with refusing(PROGRAM):
        if (wallet_file is None) == (not address):
            raise CommandError("no_wallet", "--wallet or --address?")
        wallet = _address(address if wallet_file is None else Wallet.read(wallet_file).address)
        node = Node(rpc)
        grid_units = node.grid_units_of(wallet, node.grid_mint(_address(program)))
        show_list(
            [
                ("wallet", str(wallet)),
                ("GRID", "0 (no account yet)" if grid_units is None else decimal(grid_units, GRID_DECIMALS)),
                ("SOL", decimal(node.lamports_of(wallet), SOL_DECIMALS)),
            ]
        )


class _Signer:
    """Brings one registration to its end: reads, shows, signs, waits."""

    def __init__(self, hub: HubClient, wallet: Wallet, program: str, yes: bool, wait_s: int) -> None:
        if yes and not program:
            raise CommandError("program_unknown", "--yes needs --program: the hub's word for it is not enough")
        self._hub = hub
        self.wallet = wallet
        self._program = program
        self._yes = yes
        self._ends_s = time.monotonic() + wait_s
        self._confirmed: Lines | None = None
        self._signed = False

    def run(self, asked: Answer, act: Act, meter_id: str | None) -> None:
        """Until the end is known, or it is not waited for any longer. Ends the program with a status."""
        try:
            self._run(_told(asked), act, meter_id)
        except KeyboardInterrupt as fault:
            typer.echo(f"{PROGRAM}: what was signed goes on without you; look again: {PROGRAM} registrations", err=True)
            raise typer.Exit(INTERRUPTED_STATUS) from fault

    def _run(self, asked: Answer, act: Act, meter_id: str | None) -> None:
        state, path = "", path_of("me", "registrations", asked["registration_id"])
        while True:
            if asked["state"] != state:
                state = asked["state"]
                typer.echo(f"{clean(str(state))}{_detail(asked)}")
            if state in BAD:
                raise CommandError(str(asked["error_code"] or state), str(asked["error"] or "nothing was registered"))
            if state == GOOD:
                return
            if state not in WAITS:
                raise CommandError("unexpected_answer", f"the state {state}")
            late = time.monotonic() > self._ends_s
            if asked["transaction"] is not None and not (late and self._signed):
                asked = self._sign(asked, act, meter_id, path)
                continue
            if late:
                typer.echo(f"{PROGRAM}: not known yet how it ends; look again: {PROGRAM} registrations", err=True)
                raise typer.Exit(UNKNOWN_STATUS)
            time.sleep(PAUSE_S)
            asked = self._look(path) or asked

    def _look(self, path: str) -> Answer | None:
        """How things stand; None if the hub does not answer, which says nothing about them."""
        try:
            return _told(self._hub.get(path))
        except CommandError as fault:
            if fault.code not in _AWAY:
                raise
            return None

    def _sign(self, asked: Answer, act: Act, meter_id: str | None, path: str) -> Answer:
        """Read, show, ask, sign; what the hub answers. If it was too late, how things stand instead."""
        shown = asked["transaction"].get("message")
        if not isinstance(shown, str):
            raise CommandError("unexpected_answer", "a transaction without its message")
        try:
            message = base64.b64decode(shown, validate=True)
        except ValueError as fault:
            raise CommandError("transaction_refused", "it is no Base64") from fault
        program = self._program = self._program or asked["program_id"]
        wallet, registration_id = Pubkey(self.wallet.public_key), _uuid(asked["registration_id"])
        expected = Expected(act, wallet, _address(program), registration_id, meter_id)
        lines = read_transaction(message, expected)
        self._confirm(lines)
        signature = base58.b58encode(self.wallet.sign(message)).decode()
        body = {"message": base64.b64encode(message).decode(), "signature": signature}
        try:
            sent = self._hub.post(f"{path}/signature", body, hashlib.sha256(message).hexdigest())
            self._signed = True
            return _told(sent)
        except CommandError as fault:
            if fault.code not in _LAPSED or time.monotonic() > self._ends_s:
                raise
            time.sleep(PAUSE_S)
            return _told(self._hub.get(path))

    def _confirm(self, lines: Lines) -> None:
        """Show what it says, once, and ask. Raises CommandError `not_signed`."""
        if lines == self._confirmed:
            return  # the same act, built again because the time of the last one was up
        typer.echo("This transaction says:", err=True)
        for name, words in lines:
            typer.echo(f"  {name}: {clean(words)}", err=True)
        if not self._yes:
            try:
                typer.confirm("Is that the program of your community, and shall it be signed?", abort=True, err=True)
            except typer.Abort as fault:
                typer.echo(err=True)
                raise CommandError("not_signed", "you did not want to") from fault
        self._confirmed = lines


def _detail(asked: Answer) -> str:
    return f" {clean(str(asked['signature']))}" if asked["signature"] else ""


def _told(answer: Answer) -> Answer:
    """The answer, if it is one about a registration. Raises CommandError `unexpected_answer`."""
    for name, kind in _TOLD.items():
        if name not in answer or not isinstance(answer[name], kind):
            raise CommandError("unexpected_answer", f"a registration without a proper {name}; is this a hub?")
    _uuid(answer["registration_id"])
    return answer


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as fault:
        raise CommandError("unexpected_answer", f"{text} is no id of a registration") from fault


def _address(text: str) -> Pubkey:
    """Raises CommandError `address`."""
    try:
        return Pubkey.from_string(text)
    except ValueError as fault:
        raise CommandError("address", f"{text}: an address of Solana is expected") from fault
