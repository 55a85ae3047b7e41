"""Telling members what happened: in the application, by e-mail, by webhook, as each of them prefers."""
