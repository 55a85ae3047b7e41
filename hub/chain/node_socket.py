"""The node's WebSocket, as what it is good for here: it says that something of the program was finalized.

What it says is not read, only that it says something; whoever polls then reads it. So it may break, repeat itself,
leave things out or lie, and nothing comes of it but a later poll.
"""

from __future__ import annotations

import asyncio
from typing import Final

from solana.rpc.commitment import Finalized
from solana.rpc.websocket_api import OverflowPolicy, SolanaWsClient
from solders.pubkey import Pubkey
from solders.rpc.config import RpcTransactionLogsFilterMentions

from hub import logs, metrics
from hub.chain.loops import back_off_s, wait_for

SILENCE_MAX_S: Final = 600.0
"""After that much silence it is opened anew: a subscription may be lost and the connection live on."""
STEADY_AFTER_S: Final = 30.0
"""A connection that held so long counts as good; the next pause begins small again."""
REQUEST_TIMEOUT_S: Final = 10.0
QUEUE_MAX: Final = 100
FRAME_BYTES_MAX: Final = 2**20

log = logs.get_logger()


async def listen(
    ws_url: str, program_id: Pubkey, wake: asyncio.Event, hears: asyncio.Event, stop: asyncio.Event
) -> None:
    """Set `wake` whenever the node tells of the program, and whenever it was not listened to, until `stop`.

    `hears` is set while the node is listened to.
    """
    failures = 0
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        opened_s = loop.time()
        try:
            await _listen_until_it_breaks(ws_url, program_id, wake, hears, stop)
        except Exception as fault:  # noqa: BLE001 - whatever is wrong with it, the polling goes on
            failures = 1 if loop.time() - opened_s > STEADY_AFTER_S else failures + 1
            pause_s = back_off_s(failures)
            # the fault's own words may hold the address, and with it a provider's key
            log.info("chain_websocket_lost", fault=type(fault).__name__, pause_s=round(pause_s, 1))
            await wait_for(stop, pause_s)
        finally:
            hears.clear()
            metrics.CHAIN_SOCKET_CONNECTED.set(0)


async def _listen_until_it_breaks(
    ws_url: str, program_id: Pubkey, wake: asyncio.Event, hears: asyncio.Event, stop: asyncio.Event
) -> None:
    async with SolanaWsClient(
        ws_url,
        request_timeout=REQUEST_TIMEOUT_S,
        notification_queue_size=QUEUE_MAX,
        overflow=OverflowPolicy.DROP_OLDEST,
        max_size=FRAME_BYTES_MAX,
        open_timeout=REQUEST_TIMEOUT_S,
        close_timeout=1.0,
    ) as client:
        await client.logs_subscribe(filter_=RpcTransactionLogsFilterMentions(program_id), commitment=Finalized)
        hears.set()
        metrics.CHAIN_SOCKET_CONNECTED.set(1)
        log.info("chain_websocket_connected")
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                wake.set()  # also at first: what came before was not heard
                heard = asyncio.ensure_future(client.recv())
                done, _ = await asyncio.wait(
                    {heard, stopped}, timeout=SILENCE_MAX_S, return_when=asyncio.FIRST_COMPLETED
                )
                if heard not in done:
                    heard.cancel()
                    await asyncio.gather(heard, return_exceptions=True)
                    return
                heard.result()
        finally:
            stopped.cancel()
