"""What a client asks to be told about: the parameters of the subscribe methods, checked as a node checks them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulators.solana import accounts, filters, params
from simulators.solana.accounts import Form
from simulators.solana.errors import invalid_params, method_not_found
from simulators.solana.filters import Filter

DEFAULT_ENCODING = "binary"


@dataclass(frozen=True)
class Topic:
    """What something happens to, and how sure of it the client wants to be."""

    kind: str
    commitment: str = ""
    key: str = ""


@dataclass(frozen=True)
class AccountView:
    """How accounts are shown, and, of a program, which."""

    form: Form
    filters: tuple[Filter, ...] = ()


@dataclass(frozen=True)
class SignatureView:
    """Whether the client is told, too, that the transaction has arrived."""

    received: bool


@dataclass(frozen=True)
class BlockView:
    """How blocks are shown: the configuration of getBlock."""

    config: Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What a subscription is about."""

    topic: Topic
    view: AccountView | SignatureView | BlockView | None = None


def parse_subscribe(method: str, given: Sequence[Any]) -> Wanted:
    """What this subscribe method asks for. Raises RpcError if there is no such method, or with such parameters."""
    if method not in METHODS:
        raise method_not_found()
    return METHODS[method](given)


def _account(given: Sequence[Any]) -> Wanted:
    config = _config(given)
    view = AccountView(accounts.form(config, DEFAULT_ENCODING))
    return Wanted(Topic("account", params.commitment(config.get("commitment")), _address(given)), view)


def _program(given: Sequence[Any]) -> Wanted:
    config = _config(given)
    view = AccountView(accounts.form(config, DEFAULT_ENCODING), filters.parse(config.get("filters")))
    return Wanted(Topic("program", params.commitment(config.get("commitment")), _address(given)), view)


def _logs(given: Sequence[Any]) -> Wanted:
    wanted = _first(given)
    commitment = params.commitment(_config(given).get("commitment"))
    match wanted:
        case "all" | "allWithVotes":
            return Wanted(Topic("logs", commitment))
        case {"mentions": [address]}:
            return Wanted(Topic("logs", commitment, str(params.pubkey(address))))
        case {"mentions": [*_]}:
            raise invalid_params("Invalid Request: Only 1 address supported")
    raise params.wrong_type(wanted, "enum RpcTransactionLogsFilter")


def _signature(given: Sequence[Any]) -> Wanted:
    config = _config(given)
    view = SignatureView(params.boolean(config, "enableReceivedNotification"))
    signature = str(params.signature(_first(given)))
    return Wanted(Topic("signature", params.commitment(config.get("commitment")), signature), view)


def _block(given: Sequence[Any]) -> Wanted:
    wanted = _first(given)
    config = _config(given)
    commitment = params.confirmed(config)
    shown = {name: value for name, value in config.items() if name != "showRewards"}
    rewards = params.boolean(config, "showRewards")
    view = BlockView({**shown, "rewards": rewards, "commitment": commitment})
    match wanted:
        case "all":
            return Wanted(Topic("block", commitment), view)
        case {"mentionsAccountOrProgram": address}:
            return Wanted(Topic("block", commitment, str(params.pubkey(address))), view)
    raise params.wrong_type(wanted, "enum RpcBlockSubscribeFilter")


def _plain(kind: str) -> Callable[[Sequence[Any]], Wanted]:
    return lambda _: Wanted(Topic(kind))


METHODS: Mapping[str, Callable[[Sequence[Any]], Wanted]] = {
    "accountSubscribe": _account,
    "blockSubscribe": _block,
    "logsSubscribe": _logs,
    "programSubscribe": _program,
    "rootSubscribe": _plain("root"),
    "signatureSubscribe": _signature,
    "slotSubscribe": _plain("slot"),
    "slotsUpdatesSubscribe": _plain("slotsUpdates"),
}
UNSUBSCRIBE_METHODS = frozenset(method.replace("Subscribe", "Unsubscribe") for method in METHODS)


def _first(given: Sequence[Any]) -> Any:
    if not given:
        raise invalid_params("`params` should have at least 1 argument(s)")
    return given[0]


def _config(given: Sequence[Any]) -> Mapping[str, Any]:
    return params.mapping(given[1] if len(given) > 1 else None)


def _address(given: Sequence[Any]) -> str:
    return str(params.pubkey(_first(given)))
