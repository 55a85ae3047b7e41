"""The registry: which meters there are, whose they are, and under which keys they sign."""
