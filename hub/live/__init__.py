"""What just happened, told to those it concerns: numbered in the transaction that did it, sent over WebSocket."""
