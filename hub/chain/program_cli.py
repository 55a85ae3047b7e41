"""`commonwatt hub program …`: what an operator does with the energy program, on any cluster.

It needs no hub and no database (but `lookup-tables`): a node, and keys as Solana's own tools keep them. What a command
costs is said before it acts; at a terminal it asks, unless --yes. A command that was interrupted is given again.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import base58
import typer
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from hub import db
from hub.chain import deployment, instructions, lookup_tables_store
from hub.chain.accounts import ConfigAccount
from hub.chain.addresses import Addresses
from hub.chain.by_hand import carry_out, fees_lamports
from hub.chain.chain_state import check_genesis, energy_program, get_config
from hub.chain.deployment import Cost, Deployer
from hub.chain.instructions import Roles
from hub.chain.key import read_keypair
from hub.chain.program_status import describe_chain, sol
from hub.chain.rpc import Node
from hub.chain.token_2022 import TokenName
from hub.errors import HubError, SettingsInvalid
from hub.settings import check_node
from protocol.errors import ProtocolError
from protocol.topics import check_community_id, domain_of

CAPACITY_W_MAX = 100_000
"""Of one meter, unless told otherwise: the roof of a school."""
REGISTER_STEP_WH_MAX = 10_000

app = typer.Typer(help="The energy program on the chain.", no_args_is_help=True)
T = TypeVar("T")

RpcUrl = Annotated[str, typer.Option("--rpc-url", envvar="COMMONWATT_RPC_URL", help="JSON-RPC of a Solana node.")]
Payer = Annotated[
    Path, typer.Option("--keypair", help="Key file, mode 0600, of who pays and is the program's authority.")
]
ProgramId = Annotated[
    str,
    typer.Option("--program-id", envvar="COMMONWATT_PROGRAM_ID_HEX", help="The program's address, Base58 or hex."),
]
CommunityId = Annotated[str, typer.Option("--community-id", envvar="COMMONWATT_COMMUNITY_ID")]
Genesis = Annotated[
    str,
    typer.Option("--genesis-hash-hex", envvar="COMMONWATT_GENESIS_HASH_HEX", help="Refuse a node of any other chain."),
]
Price = Annotated[
    int,
    typer.Option(
        "--compute-unit-price",
        envvar="COMMONWATT_COMPUTE_UNIT_PRICE_MICRO_LAMPORTS",
        min=0,
        max=10_000_000,
        help="Micro-lamports offered for each compute unit, so that a busy cluster takes the transactions.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
OptionalKey = Annotated[str, typer.Option(help="Base58; unless given, it stays.")]


@app.command()
def deploy(
    *,
    rpc_url: RpcUrl,
    keypair: Payer,
    program_keypair: Annotated[Path, typer.Option(help="Key file whose address the program gets.")],
    genesis_hash_hex: Genesis = "",
    price: Price = 0,
    yes: Yes = False,
) -> None:
    """Bring the program of this release to the chain. Again after an interruption: it goes on where it was."""

    async def act(node: Node) -> None:
        payer, program_key = read_keypair(keypair), read_keypair(program_keypair)
        await _check_chain(node, genesis_hash_hex)
        if not await deployment.is_deployed(node, program_key.pubkey()):
            cost = await deployment.deployment_cost(node, energy_program(), price)
            await _agree(node, f"deploy the program {program_key.pubkey()}", payer, cost, yes)
        await deployment.deploy(_deployer(node, payer, price), program_key, energy_program())
        typer.echo(f"COMMONWATT_GENESIS_HASH_HEX={(await node.genesis_hash()).hex()}")
        typer.echo(f"COMMONWATT_PROGRAM_ID_HEX={bytes(program_key.pubkey()).hex()}")

    _run(rpc_url, act)


@app.command()
def upgrade(
    *,
    rpc_url: RpcUrl,
    keypair: Payer,
    program_id: ProgramId,
    genesis_hash_hex: Genesis = "",
    price: Price = 0,
    yes: Yes = False,
) -> None:
    """Put the program of this release in the place of the one on the chain; accounts and GRID stay as they are."""

    async def act(node: Node) -> None:
        payer = read_keypair(keypair)
        await _check_chain(node, genesis_hash_hex)
        cost = await deployment.upgrade_cost(node, _key(program_id), energy_program(), price)
        await _agree(node, f"upgrade the program {_key(program_id)}", payer, cost, yes)
        await deployment.upgrade(_deployer(node, payer, price), _key(program_id), energy_program())
        typer.echo("The program is this release's.")

    _run(rpc_url, act)


@app.command()
def set_upgrade_authority(
    *,
    rpc_url: RpcUrl,
    keypair: Payer,
    program_id: ProgramId,
    new_authority: Annotated[str, typer.Option(help="Address of who may upgrade from now on, Base58.")] = "",
    final: Annotated[bool, typer.Option("--final", help="Nobody may upgrade it, ever again.")] = False,
    genesis_hash_hex: Genesis = "",
    price: Price = 0,
    yes: Yes = False,
) -> None:
    """Hand the right to upgrade to another key, or to nobody."""

    async def act(node: Node) -> None:
        if bool(new_authority) == final:
            raise SettingsInvalid("--new-authority or --final: one of them")
        payer = read_keypair(keypair)
        await _check_chain(node, genesis_hash_hex)
        what = "let NOBODY upgrade the program ever again" if final else f"let {_key(new_authority)} alone upgrade it"
        await _agree(node, what, payer, Cost(0, fees_lamports(1, 1, price)), yes)
        heir = None if final else _key(new_authority)
        await deployment.set_upgrade_authority(_deployer(node, payer, price), _key(program_id), heir)
        typer.echo("Nobody can upgrade it any more." if final else f"{heir} may upgrade it.")

    _run(rpc_url, act)


@app.command()
def initialize(
    *,
    rpc_url: RpcUrl,
    keypair: Payer,
    program_id: ProgramId,
    community_id: CommunityId,
    hub: Annotated[str, typer.Option(help="Address of the hub's key, Base58.")],
    issuer: Annotated[str, typer.Option(help="Address that will issue certificates, Base58.")],
    validator: Annotated[str, typer.Option(help="Address that will validate them: another one.")],
    capacity_w_max: Annotated[int, typer.Option(min=1, help="The largest meter, in W.")] = CAPACITY_W_MAX,
    register_step_wh_max: Annotated[
        int, typer.Option(min=1, max=2**32 - 1, help="The coarsest register, in Wh.")
    ] = REGISTER_STEP_WH_MAX,
    name: Annotated[str, typer.Option(help="Of the token, as wallets show it.")] = "GRID",
    symbol: Annotated[str, typer.Option(help="Likewise, in short.")] = "GRID",
    uri: Annotated[str, typer.Option(help="Of a JSON file with a picture, as wallets read it.")] = "",
    genesis_hash_hex: Genesis = "",
    price: Price = 0,
    yes: Yes = False,
) -> None:
    """Make the mint of GRID, hand it to the program, and tell the program whom it serves. Once, for ever."""

    async def act(node: Node) -> None:
        authority = read_keypair(keypair)
        genesis_hash = await _check_chain(node, genesis_hash_hex)
        domain = domain_of(_community(community_id), genesis_hash, bytes(_key(program_id)))
        roles = Roles(
            bytes(_key(hub)), bytes(_key(issuer)), bytes(_key(validator)), capacity_w_max, register_step_wh_max
        )
        present = await deployment.find_config(node, _key(program_id))
        if present is not None and present.domain == domain:
            typer.echo("It is initialized already; `configure` changes what can be changed.")
            return
        token = TokenName(name, symbol, uri)
        cost = await deployment.initialization_cost(node, token, price)
        await _agree(node, f"initialize the program for {community_id}, domain {domain.hex()}", authority, cost, yes)
        await deployment.initialize(node, authority, _key(program_id), domain, roles, token, "finalized", price)
        typer.echo(f"It serves {community_id}; GRID is {deployment.grid_mint_of(authority.pubkey(), domain)}.")

    _run(rpc_url, act)


@app.command()
def configure(
    *,
    rpc_url: RpcUrl,
    keypair: Payer,
    program_id: ProgramId,
    hub: OptionalKey = "",
    issuer: OptionalKey = "",
    validator: OptionalKey = "",
    new_admin_keypair: Annotated[Path | None, typer.Option(help="Key file of the admin to be: it signs too.")] = None,
    capacity_w_max: Annotated[int | None, typer.Option(min=1)] = None,
    register_step_wh_max: Annotated[int | None, typer.Option(min=1, max=2**32 - 1)] = None,
    genesis_hash_hex: Genesis = "",
    price: Price = 0,
    yes: Yes = False,
) -> None:
    """Change who may do what, and the limits of meters; what is not given stays. --keypair is the admin's."""

    async def act(node: Node) -> None:
        admin = read_keypair(keypair)
        heir = admin if new_admin_keypair is None else read_keypair(new_admin_keypair)
        await _check_chain(node, genesis_hash_hex)
        config = await get_config(node, _key(program_id))
        roles = Roles(
            bytes(_key(hub)) if hub else config.hub,
            bytes(_key(issuer)) if issuer else config.issuer,
            bytes(_key(validator)) if validator else config.validator,
            config.capacity_w_max if capacity_w_max is None else capacity_w_max,
            config.register_step_wh_max if register_step_wh_max is None else register_step_wh_max,
        )
        for line in _changes(config, roles, heir):
            typer.echo(line)
        signers = [admin] if heir == admin else [admin, heir]
        await _agree(node, "configure the program so", admin, Cost(0, fees_lamports(len(signers), 1, price)), yes)
        at = Addresses(_key(program_id))
        step = instructions.configure(at, bytes(admin.pubkey()), bytes(heir.pubkey()), roles)
        typer.echo(f"Configured by {await carry_out(node, [step], signers, 'finalized', price)}.")

    _run(rpc_url, act)


@app.command()
def pause(
    *,
    rpc_url: RpcUrl,
    keypair: Payer,
    program_id: ProgramId,
    genesis_hash_hex: Genesis = "",
    price: Price = 0,
    yes: Yes = False,
) -> None:
    """Stop the program: nothing is registered, presented or minted. --keypair is the hub's or the admin's."""
    _set_paused(rpc_url, keypair, program_id, genesis_hash_hex, True, price, yes)


@app.command()
def resume(
    *,
    rpc_url: RpcUrl,
    keypair: Payer,
    program_id: ProgramId,
    genesis_hash_hex: Genesis = "",
    price: Price = 0,
    yes: Yes = False,
) -> None:
    """Let the program go on. --keypair is the admin's."""
    _set_paused(rpc_url, keypair, program_id, genesis_hash_hex, False, price, yes)


@app.command()
def status(
    *,
    rpc_url: RpcUrl,
    program_id: ProgramId,
    community_id: CommunityId = "",
    genesis_hash_hex: Genesis = "",
    chain_key_file: Annotated[Path | None, typer.Option(envvar="COMMONWATT_CHAIN_KEY_FILE")] = None,
) -> None:
    """Say how it stands, in plain words; ends with 1 if the hub could not work so."""

    async def act(node: Node) -> bool:
        key = _key(program_id)
        genesis_hash = _hash(genesis_hash_hex) if genesis_hash_hex else None
        hub = None if chain_key_file is None else bytes(read_keypair(chain_key_file).pubkey())
        domain = None
        if community_id and genesis_hash is not None:
            domain = domain_of(_community(community_id), genesis_hash, bytes(key))
        lines = await describe_chain(node, key, genesis_hash, domain, hub)
        for line in lines:
            typer.echo(f"{ {True: 'good ', False: 'WRONG', None: '     '}[line.good] } {line.text}")
        return all(line.good is not False for line in lines)

    if not _run(rpc_url, act):
        raise typer.Exit(1)


@app.command()
def lookup_tables(*, database_url: Annotated[str, typer.Option(envvar="COMMONWATT_DATABASE_URL")]) -> None:
    """List the address lookup tables that the hub has made, and how full they are."""
    with _refusing():
        engine = db.create_database_engine(database_url, "commonwatt-lookup-tables")
        try:
            with db.transaction(engine) as connection:
                fillings = lookup_tables_store.list_fillings(connection)
        finally:
            engine.dispose()
        for each in fillings:
            state = "being written to" if each.writing else "ready"
            typer.echo(f"{each.address}  {each.usable} addresses usable, {each.pending} on their way, {state}")
        typer.echo(f"{len(fillings)} tables; `hub chain` makes them and fills them by itself.")


def _set_paused(
    rpc_url: str, keypair: Path, program_id: str, genesis_hash_hex: str, paused: bool, price: int, yes: bool
) -> None:
    async def act(node: Node) -> None:
        authority = read_keypair(keypair)
        await _check_chain(node, genesis_hash_hex)
        what = "pause the program" if paused else "let the program go on"
        await _agree(node, what, authority, Cost(0, fees_lamports(1, 1, price)), yes)
        step = instructions.pause(Addresses(_key(program_id)), bytes(authority.pubkey()), paused)
        typer.echo(
            f"{'Paused' if paused else 'Resumed'} by {await carry_out(node, [step], [authority], 'finalized', price)}."
        )

    _run(rpc_url, act)


def _deployer(node: Node, payer: Keypair, price: int) -> Deployer:
    return Deployer(node, payer, payer, typer.echo, compute_unit_price_micro_lamports=price)


def _changes(config: ConfigAccount, roles: Roles, admin: Keypair) -> Iterator[str]:
    now = {"admin": config.admin, "hub": config.hub, "issuer": config.issuer, "validator": config.validator}
    then = {"admin": bytes(admin.pubkey()), "hub": roles.hub, "issuer": roles.issuer, "validator": roles.validator}
    for name, key in now.items():
        if then[name] != key:
            yield f"{name}: {Pubkey.from_bytes(key)} becomes {Pubkey.from_bytes(then[name])}"
    if roles.capacity_w_max != config.capacity_w_max:
        yield f"largest meter: {config.capacity_w_max} W becomes {roles.capacity_w_max} W"
    if roles.register_step_wh_max != config.register_step_wh_max:
        yield f"coarsest register: {config.register_step_wh_max} Wh becomes {roles.register_step_wh_max} Wh"


async def _agree(node: Node, what: str, payer: Keypair, cost: Cost, yes: bool) -> None:
    """Say what it costs, and ask if somebody is there to answer. Raises SettingsInvalid if the payer has too little."""
    balance = await node.lamports(payer.pubkey())
    typer.echo(f"To {what}, {payer.pubkey()} pays:")
    typer.echo(f"  kept on the chain  {sol(cost.rent_lamports)}")
    typer.echo(f"  fees, at most      {sol(cost.fee_lamports)}")
    if cost.lent_lamports:
        typer.echo(f"  needed on the way  {sol(cost.lent_lamports)}, and given back")
    typer.echo(f"It has             {sol(balance)}.")
    if balance < max(cost.rent_lamports, cost.lent_lamports) + cost.fee_lamports:
        raise SettingsInvalid("that is not enough")
    if not yes and sys.stdin.isatty():
        typer.confirm("Go on?", abort=True)


async def _check_chain(node: Node, genesis_hash_hex: str) -> bytes:
    """Which chain it is. Raises ChainDiffers if another was expected."""
    if genesis_hash_hex:
        await check_genesis(node, _hash(genesis_hash_hex))
    return await node.genesis_hash()


def _key(text: str) -> Pubkey:
    try:
        decoded = bytes.fromhex(text) if len(text) == 64 else base58.b58decode(text)
        return Pubkey.from_bytes(decoded)
    except ValueError:
        raise SettingsInvalid(f"{text}: not an address of the chain") from None


def _hash(text: str) -> bytes:
    try:
        decoded = bytes.fromhex(text)
    except ValueError:
        decoded = b""
    if len(decoded) != 32:
        raise SettingsInvalid(f"{text}: not 32 bytes in hexadecimal")
    return decoded


def _community(text: str) -> str:
    try:
        return check_community_id(text)
    except ProtocolError as fault:
        raise SettingsInvalid(str(fault)) from None


def _run(rpc_url: str, act: Callable[[Node], Awaitable[T]]) -> T:
    async def run() -> T:
        async with Node(rpc_url) as node:
            return await act(node)

    with _refusing():
        try:
            check_node(rpc_url)
        except ValueError as fault:
            raise SettingsInvalid(str(fault)) from None
        return asyncio.run(run())
    raise AssertionError("it returned or ended")


@contextmanager
def _refusing() -> Iterator[None]:
    """One clear line for what an operator must mend."""
    try:
        yield
    except HubError as fault:
        detail = f": {fault.detail}" if fault.detail else ""
        typer.echo(f"commonwatt hub program: {fault.title}{detail}", err=True)
        raise typer.Exit(1) from None
    except Exception as fault:
        if not db.is_database_away(fault):
            raise
        typer.echo(f"commonwatt hub program: The database does not answer: {str(fault).splitlines()[0]}", err=True)
        raise typer.Exit(1) from None
