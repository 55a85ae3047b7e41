"""The outbox: work for the world outside, written down in the business transaction and done after it."""
