"""The meter agent: reads a home's registers, seals what they say, and keeps it until the hub has stored it."""

__version__ = "0.1.0"
