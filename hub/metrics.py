"""Every figure that a hub process exposes to Prometheus, in one list so that names and units stay consistent.

Each process has its own registry contents; the API serves them at /metrics, ingest and jobs on their metrics port.
Labels never hold a meter id: their number must stay bounded.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

SHORT_DURATIONS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LAGS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3_600.0)
BATCH_MESSAGES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000)

MESSAGES_RECEIVED = Counter(
    "commonwatt_ingest_messages_received_total",
    "Messages taken from the broker or posted.",
    ["source"],
    registry=REGISTRY,
)
MESSAGE_OUTCOMES = Counter(
    "commonwatt_ingest_message_outcomes_total",
    "What became of each message; the reason is empty for accepted ones and repeats.",
    ["outcome", "reason"],
    registry=REGISTRY,
)
READINGS_STORED = Counter(
    "commonwatt_ingest_readings_stored_total", "Readings committed to the database.", registry=REGISTRY
)
BATCH_SIZE = Histogram(
    "commonwatt_ingest_batch_messages",
    "Messages stored by one transaction.",
    buckets=BATCH_MESSAGES,
    registry=REGISTRY,
)
BATCH_DURATION = Histogram(
    "commonwatt_ingest_batch_seconds",
    "From the first look at a batch to its commit.",
    buckets=SHORT_DURATIONS_S,
    registry=REGISTRY,
)
COMMIT_LAG = Histogram(
    "commonwatt_ingest_commit_lag_seconds",
    "From the arrival of a message to its commit.",
    buckets=LAGS_S,
    registry=REGISTRY,
)
RECEIPTS_PUBLISHED = Counter(
    "commonwatt_ingest_receipts_published_total", "Committed receipts sent to meters.", registry=REGISTRY
)
LEASES_HELD = Gauge("commonwatt_ingest_shard_leases_held", "Shards that this process owns now.", registry=REGISTRY)
SHARDS_READ = Gauge("commonwatt_ingest_shards_read", "Shards whose broker session is open.", registry=REGISTRY)
DATABASE_RETRIES = Counter(
    "commonwatt_ingest_database_retries_total",
    "Batches tried again because the database was away.",
    registry=REGISTRY,
)

STATUSES_RECEIVED = Counter(
    "commonwatt_fleet_statuses_received_total",
    "What meters said of themselves, published or posted.",
    ["source"],
    registry=REGISTRY,
)
STATUSES_DROPPED = Counter(
    "commonwatt_fleet_statuses_dropped_total",
    "Statuses that were not stored; superseded are those that a newer one of the same meter overtook.",
    ["reason"],
    registry=REGISTRY,
)
FLEET_METERS = Gauge(
    "commonwatt_fleet_meters", "Registered meters by presence: online, offline, never.", ["presence"], registry=REGISTRY
)
FLEET_PROBLEM_METERS = Gauge(
    "commonwatt_fleet_meters_with_problems", "Meters that name a problem of their own.", registry=REGISTRY
)
FLEET_BACKLOG_SEALS = Gauge(
    "commonwatt_fleet_backlog_seals", "Seals that meters say they still have to deliver.", registry=REGISTRY
)
FLEET_MISSING_SEALS = Gauge(
    "commonwatt_fleet_missing_seals", "Seals that are missing between stored ones.", registry=REGISTRY
)

LIVE_SOCKETS = Gauge("commonwatt_live_sockets", "Open sockets, also those not yet authenticated.", registry=REGISTRY)
LIVE_SUBSCRIPTIONS = Gauge(
    "commonwatt_live_subscriptions", "Subscriptions of the open sockets, by topic.", ["topic"], registry=REGISTRY
)
LIVE_UPDATES_SENT = Counter("commonwatt_live_updates_sent_total", "Updates sent to sockets.", registry=REGISTRY)
LIVE_RESYNCS = Counter(
    "commonwatt_live_resyncs_total", "Subscriptions told that updates are missing.", ["topic"], registry=REGISTRY
)
LIVE_SOCKETS_ENDED = Counter(
    "commonwatt_live_sockets_ended_total",
    "Sockets by how they ended: left, stuck (it did not read), stopped, or the code of the refusal.",
    ["reason"],
    registry=REGISTRY,
)
LIVE_LAG = Histogram(
    "commonwatt_live_lag_seconds",
    "From just before the commit to the sending of an update, by the clocks of database and API.",
    buckets=LAGS_S,
    registry=REGISTRY,
)
LIVE_LISTENING = Gauge("commonwatt_live_listening", "1 while notifications of the database come in.", registry=REGISTRY)
LIVE_CONNECTIONS_LOST = Counter(
    "commonwatt_live_database_connections_lost_total",
    "Connections of the feed that were lost or could not be opened.",
    ["connection"],
    registry=REGISTRY,
)

MINTING_STEPS_PLANNED = Counter(
    "commonwatt_minting_steps_planned_total", "Steps of meters that were planned for the chain.", registry=REGISTRY
)
MINTED_WH = Counter("commonwatt_minted_wh_total", "Surplus that became GRID, finalized.", registry=REGISTRY)
MINTING_HELD = Counter(
    "commonwatt_minting_held_total",
    "Meters whose step the chain refused, by the program's error; an operator must look.",
    ["error"],
    registry=REGISTRY,
)
MINTING_DIFFERS = Counter(
    "commonwatt_minting_differs_total", "Settlements that minted another amount than was planned.", registry=REGISTRY
)

API_REQUEST_DURATION = Histogram(
    "commonwatt_api_request_seconds",
    "Time to answer, by route template.",
    ["method", "route", "status"],
    buckets=SHORT_DURATIONS_S,
    registry=REGISTRY,
)

REQUESTS_LIMITED = Counter(
    "commonwatt_api_requests_limited_total", "Requests refused as too many, by policy.", ["policy"], registry=REGISTRY
)

NOTIFICATIONS = Counter(
    "commonwatt_notifications_total",
    "What became of notifications, by channel: in_app, email, webhook.",
    ["channel", "outcome"],
    registry=REGISTRY,
)
WEBHOOK_DURATION = Histogram(
    "commonwatt_webhook_try_seconds",
    "From looking the name up to the receiver's status, or to giving up on it.",
    ["outcome"],
    buckets=SHORT_DURATIONS_S,
    registry=REGISTRY,
)

CHAIN_WATCHER_LAG_SLOTS = Gauge(
    "commonwatt_chain_watcher_lag_slots",
    "Finalized slots of the node by which the inbox is behind.",
    registry=REGISTRY,
)
CHAIN_WATCHER_READ = Gauge(
    "commonwatt_chain_watcher_read_timestamp_seconds",
    "When the watcher last had read all that the node had finalized, in Unix time.",
    registry=REGISTRY,
)
CHAIN_NODE_LAG = Gauge(
    "commonwatt_chain_node_lag_seconds",
    "By how much the node's newest finalized block is older than the time.",
    registry=REGISTRY,
)
CHAIN_SOCKET_CONNECTED = Gauge(
    "commonwatt_chain_websocket_connected", "1 while the node tells of new transactions.", registry=REGISTRY
)
CHAIN_EVENTS_READ = Counter(
    "commonwatt_chain_events_read_total", "Events of the program written to the inbox.", registry=REGISTRY
)
CHAIN_EVENTS_PROCESSED = Counter(
    "commonwatt_chain_events_processed_total",
    "What became of events of the inbox: processed, or set aside and tried again later.",
    ["outcome"],
    registry=REGISTRY,
)
CHAIN_EVENTS_UNPROCESSED = Gauge(
    "commonwatt_chain_events_unprocessed",
    "Events of the inbox by state: waiting, set_aside.",
    ["state"],
    registry=REGISTRY,
)
CHAIN_HISTORY_HOLES = Counter(
    "commonwatt_chain_history_holes_total",
    "Stretches of history that no node could tell; the accounts were compared instead.",
    ["reason"],
    registry=REGISTRY,
)
CHAIN_MIRROR_REPAIRS = Counter(
    "commonwatt_chain_mirror_repairs_total",
    "Mirrors set right by comparing accounts: behind (events of it were not processed yet) or missed.",
    ["reason"],
    registry=REGISTRY,
)
CHAIN_LOOP_FAILURES = Counter(
    "commonwatt_chain_loop_failures_total",
    "Rounds of a loop of the chain process that failed and are tried again.",
    ["loop"],
    registry=REGISTRY,
)

OUTBOX_DEPTH = Gauge("commonwatt_outbox_unfinished_jobs", "Jobs waiting or running.", registry=REGISTRY)
OUTBOX_LATENESS = Gauge(
    "commonwatt_outbox_oldest_job_late_seconds",
    "For how long the earliest unfinished job of a kind has been due.",
    ["kind"],
    registry=REGISTRY,
)
OUTBOX_UNSERVED = Gauge(
    "commonwatt_outbox_unserved_jobs",
    "Unfinished jobs of kinds that this process has no lane for.",
    ["kind"],
    registry=REGISTRY,
)
OUTBOX_JOBS = Counter(
    "commonwatt_outbox_jobs_run_total", "Attempts at a job, by how they ended.", ["kind", "result"], registry=REGISTRY
)

CHAIN_USABLE = Gauge(
    "commonwatt_chain_usable",
    "1 for the reason that holds: usable, or the code of what is wrong; then nothing is signed.",
    ["reason"],
    registry=REGISTRY,
)
CHAIN_KEY_LAMPORTS = Gauge("commonwatt_chain_key_lamports", "What the hub's key has to pay with.", registry=REGISTRY)
CHAIN_INTENTS = Gauge(
    "commonwatt_chain_intents", "Intents that have not ended, by kind and state.", ["kind", "state"], registry=REGISTRY
)
CHAIN_OLDEST_INTENT = Gauge(
    "commonwatt_chain_oldest_intent_age_seconds",
    "Age of the oldest intent that has not ended, by state.",
    ["state"],
    registry=REGISTRY,
)
CHAIN_INTENTS_ENDED = Counter(
    "commonwatt_chain_intents_ended_total", "Intents by how they ended.", ["kind", "outcome"], registry=REGISTRY
)
CHAIN_INTENTS_CONTRADICTED = Counter(
    "commonwatt_chain_intents_contradicted_total",
    "Intents that had ended otherwise when an event showed that they had happened: a node told an untruth.",
    registry=REGISTRY,
)
CHAIN_SENDS = Counter(
    "commonwatt_chain_sends_total",
    "Tries to send a transaction: taken, refused by the simulation, or not answered.",
    ["kind", "outcome"],
    registry=REGISTRY,
)

PASSWORD_HASHES = Counter(
    "commonwatt_password_hashes_total",
    "Argon2id hashes worked out, to keep a password (make) or to compare one (verify).",
    ["purpose"],
    registry=REGISTRY,
)
