"""What crosses the wire between a meter and the hub: bytes, topics and limits.

Pure and small on purpose. The same files run on CPython and on MicroPython, so they import only `struct`,
`hashlib` and each other, and use plain classes. There is no cryptography here: who signs and who verifies
is the business of the agent and of the hub; this package says exactly which bytes.
"""
