"""The energy program: `docs/program.md` says what it does. `energy.so` is what is deployed."""
