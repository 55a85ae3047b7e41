"""`make bench`: the hub's ingest against what people would use instead, in one run on one machine."""
