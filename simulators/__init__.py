"""The outside world over its real protocols. Nothing here knows the code that it is there to exercise."""
