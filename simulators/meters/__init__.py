"""Simulated homes: real Modbus TCP servers with the register map of a real meter, and energy that adds up."""
