"""Readings: what makes a seal implausible, who can overrule that, and where a kilowatt-hour is kept.

consumer ─► envelope (verify, decode) ─► service (one transaction) ─► rules (decide) ─► store (keep)
"""
