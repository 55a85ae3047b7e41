"""From accepted seals to GRID: what is presented to the energy program, what came of it, and why nothing is minted."""
