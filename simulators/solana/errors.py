"""JSON-RPC errors with the codes and words of a Solana node."""

from typing import Any, Final

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
BLOCK_CLEANED_UP: Final = -32001
PREFLIGHT_FAILURE: Final = -32002
SIGNATURE_VERIFICATION_FAILURE: Final = -32003
BLOCK_NOT_AVAILABLE: Final = -32004
NODE_UNHEALTHY: Final = -32005
UNSUPPORTED_TRANSACTION_VERSION: Final = -32015
MIN_CONTEXT_SLOT_NOT_REACHED: Final = -32016


class RpcError(Exception):
    """What is answered instead of a result."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def as_json(self) -> dict[str, Any]:
        """The `error` member of an answer."""
        body = {"code": self.code, "message": self.message}
        return body if self.data is None else {**body, "data": self.data}


def parse_error() -> RpcError:
    """What came is not JSON."""
    return RpcError(PARSE_ERROR, "Parse error")


def invalid_request() -> RpcError:
    """What came is JSON but no request."""
    return RpcError(INVALID_REQUEST, "Invalid request")


def method_not_found() -> RpcError:
    """There is no such method."""
    return RpcError(METHOD_NOT_FOUND, "Method not found")


def invalid_params(message: str, data: Any = None) -> RpcError:
    """The parameters are not what the method takes."""
    return RpcError(INVALID_PARAMS, message, data)


def block_cleaned_up(slot: int, first_available: int) -> RpcError:
    """The block was there and this node no longer has it."""
    message = f"Block {slot} cleaned up, does not exist on node. First available block: {first_available}"
    return RpcError(BLOCK_CLEANED_UP, message)


def block_not_available(slot: int) -> RpcError:
    """The block has not come yet."""
    return RpcError(BLOCK_NOT_AVAILABLE, f"Block not available for slot {slot}")


def signature_verification_failure() -> RpcError:
    """A signature is not by the key it stands for."""
    return RpcError(SIGNATURE_VERIFICATION_FAILURE, "Transaction signature verification failure")


def node_behind(slots: int) -> RpcError:
    """The node knows that it lags."""
    return RpcError(NODE_UNHEALTHY, f"Node is behind by {slots} slots", {"numSlotsBehind": slots})


def unsupported_version(version: int) -> RpcError:
    """The client has not said that it understands this version."""
    message = (
        f"Transaction version ({version}) is not supported by the requesting client. Please try the request again "
        f'with the following configuration parameter: "maxSupportedTransactionVersion": {version}'
    )
    return RpcError(UNSUPPORTED_TRANSACTION_VERSION, message)


def min_context_slot_not_reached(context_slot: int) -> RpcError:
    """The caller wants an answer from a later slot than this node has."""
    message = "Minimum context slot has not been reached"
    return RpcError(MIN_CONTEXT_SLOT_NOT_REACHED, message, {"contextSlot": context_slot})
