"""The hub: takes sealed readings in, keeps them, and answers for them. One folder per domain."""
