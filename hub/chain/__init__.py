"""The chain: accounts and events decoded, instructions built, and what must happen there made to happen once.

Beneath the domains: it knows the energy program and nothing of members, readings or mints.
"""
