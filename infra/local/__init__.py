"""Everything a laptop needs to run the whole platform, without root and without touching the machine."""
