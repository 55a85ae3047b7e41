"""A bad line: a relay that stands between two parties and cuts, slows, repeats, re-orders and damages what passes."""
