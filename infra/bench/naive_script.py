"""(a) The script most people write: paho callback, verify, one ORM insert and commit per message."""

import json
import queue

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import BigInteger, create_engine, make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from infra.bench.script_site import arguments, columns, finish, subscribe
from protocol.seal import split_message


class Base(DeclarativeBase):
    """The metadata of this script."""


class Reading(Base):
    """One row per reading."""

    __tablename__ = "script_readings"
    meter_id: Mapped[str] = mapped_column(primary_key=True)
    time_unix_s: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    production_wh: Mapped[int] = mapped_column(BigInteger)
    consumption_wh: Mapped[int] = mapped_column(BigInteger)
    power_w: Mapped[int]
    voltage_dv: Mapped[int]
    frequency_mhz: Mapped[int]


def main() -> None:
    """Subscribe and store until the agreed number of messages is committed."""
    given = arguments()
    engine = create_engine(make_url(given.database_url).set(drivername="postgresql+psycopg"))
    Base.metadata.create_all(engine)
    keys = {
        meter_id: Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        for meter_id, key in json.loads(given.keys.read_text()).items()
    }
    progress: queue.Queue[int] = queue.Queue()

    def on_message(topic: str, payload: bytes) -> None:
        meter_id = topic.split("/")[4]
        message = split_message(payload)
        keys[meter_id].verify(message.signature, message.seal_bytes)
        rows = [
            Reading(
                meter_id=meter_id,
                time_unix_s=time_unix_s,
                production_wh=production_wh,
                consumption_wh=consumption_wh,
                power_w=power_w,
                voltage_dv=voltage_dv,
                frequency_mhz=frequency_mhz,
            )
            for time_unix_s, production_wh, consumption_wh, power_w, voltage_dv, frequency_mhz in zip(
                *columns(message.section), strict=True
            )
        ]
        with Session(engine) as session:
            session.add_all(rows)
            session.commit()
        progress.put(len(rows))

    subscribe(given, on_message)
    finish(sum(progress.get() for _ in range(given.messages)))


if __name__ == "__main__":
    main()
