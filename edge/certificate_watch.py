"""Looks at the client certificate now and then, so that its end is a problem in the status long before it comes."""

from edge.certificate_request import EXPIRED, EXPIRES_SOON, certificate_problem
from edge.errors import CertificateError
from edge.settings import Settings
from edge.status import Standing

UNREADABLE = "certificate_unreadable"
LOOK_AGAIN_AFTER_S = 3_600


class CertificateWatch:
    """Of an agent that shows a certificate instead of a password; of any other it sees nothing."""

    def __init__(self, settings: Settings, standing: Standing) -> None:
        mqtt = settings.mqtt if settings.transport == "mqtt" else None
        self._file = mqtt.certificate_file if mqtt is not None else None
        self._standing = standing
        self._looked_at_unix_s: int | None = None

    def look(self, now_unix_s: int) -> None:
        """Say what is to be said of the certificate, once an hour."""
        looked_at = self._looked_at_unix_s
        if self._file is None or (looked_at is not None and 0 <= now_unix_s - looked_at < LOOK_AGAIN_AFTER_S):
            return
        self._looked_at_unix_s = now_unix_s
        try:
            found = certificate_problem(self._file, now_unix_s)
        except CertificateError as error:
            self._standing.failed(error)
            found = UNREADABLE
        for problem in (EXPIRES_SOON, EXPIRED, UNREADABLE):
            self._standing.problem(problem, problem == found)
