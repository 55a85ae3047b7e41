"""The agent's errors: facts with a stable code, each shown to a person as one line."""


class EdgeError(Exception):
    """Something that the agent cannot do. `code` is stable and safe to log; `detail` is for people."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


class SettingsError(EdgeError):
    """A configuration that cannot be used: which file, which key, and why."""


class RegisterMapError(EdgeError):
    """A register map that cannot be used."""


class RegisterError(EdgeError):
    """A register that says something no meter can mean. The poll is void; cumulative energy is not lost."""


class DiscoveryError(EdgeError):
    """A device that cannot be discovered: it is no SunSpec meter, or it contradicts itself."""


class ModbusError(EdgeError):
    """The meter did not answer, or answered with an exception."""


class IdentityError(EdgeError):
    """The device's key is missing, unreadable, or readable by others."""


class JournalError(EdgeError):
    """The journal cannot be opened, or does not belong to this configuration."""


class EnrolmentError(EdgeError):
    """A statement that can no longer be made anew."""


class CommandError(EdgeError):
    """A command that is not followed: forged, stale, repeated, or meant for another meter."""


class ReplayError(EdgeError):
    """A replay that could not be finished."""


class RotationError(EdgeError):
    """A change of the key that is not made."""


class HubRefusedError(EdgeError):
    """The hub has answered, and the answer is no; with the hub's own code."""


class HubUnansweredError(EdgeError):
    """Nobody knows what the hub made of a request: it was not reached, or its answer was none."""


class CertificateError(EdgeError):
    """A client certificate or its key that cannot be used."""


class BrokerError(EdgeError):
    """A broker that is reached but does not do what this meter needs of it."""
