"""The fleet as an operator sees it: which meters are there, how they are, what is missing. It never touches energy."""
