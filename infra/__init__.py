"""How Commonwatt is installed and run: locally, and for real. Starts the other rooms as processes, imports
none."""
