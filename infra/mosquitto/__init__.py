"""The broker's configuration, the same for a laptop and for a real installation."""
