"""What most people would write: `websockets`, its `broadcast`, and the same LISTEN. A bound, no hub.

Everybody gets everything: nobody is asked who it is, nobody can resume, and who does not read fills the memory.
"""

import argparse
import asyncio
import resource

import psycopg
from websockets.asyncio.server import ServerConnection, broadcast, serve


async def run(database_url: str, port: int) -> None:
    """Serve until stopped."""
    sockets: set[ServerConnection] = set()

    async def hold(socket: ServerConnection) -> None:
        sockets.add(socket)
        try:
            await socket.wait_closed()
        finally:
            sockets.discard(socket)

    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as listener,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as reader,
        serve(hold, "127.0.0.1", port, compression=None, backlog=512),
    ):
        await listener.execute("LISTEN commonwatt_live")
        print('{"ready": 0}', flush=True)
        async for notification in listener.notifies():
            _, topic, sequence = notification.payload.split(" ")
            cursor = await reader.execute(
                "SELECT kind, data::text FROM live_updates WHERE topic = %s AND sequence = %s", [topic, int(sequence)]
            )
            for kind, data in await cursor.fetchall():
                broadcast(
                    sockets,
                    f'{{"type":"update","topic":"{topic}","sequence":{sequence},"kind":"{kind}","data":{data}}}',
                )


def main() -> None:
    """Be the server of one run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard > soft else soft, hard))
    asyncio.run(run(given.database_url, given.port))


if __name__ == "__main__":
    main()
