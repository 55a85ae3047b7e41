"""The ways to the hub: MQTT 5, MQTT 3.1.1 and HTTPS, with the same bytes and the same guarantee.

Whichever is configured, a seal leaves the journal when a believed receipt covers it, and for no other reason.
"""

from collections.abc import Callable

from edge.connection import Hooks, Transport
from edge.https_transport import HttpsTransport
from edge.mqtt_transport import MqttTransport
from edge.outbox import Outbox
from edge.settings import Settings

__all__ = ["Hooks", "Transport", "create_transport"]


def create_transport(settings: Settings, outbox: Outbox, hooks: Hooks, random: Callable[[], float]) -> Transport:
    """The configured transport; `random` gives numbers in [0, 1).

    Raises IdentityError if a secret or an authority cannot be read, SettingsError if the hub's URL is not to be used.
    """
    if settings.transport == "https":
        return HttpsTransport(settings, outbox, hooks, random)
    return MqttTransport(settings, outbox, hooks, random)
