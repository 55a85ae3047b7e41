"""The outside world that the hub talks to: one module per foreign interface."""
