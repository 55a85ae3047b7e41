"""A Solana cluster of one node: durable, over LiteSVM, at the wire what its clients expect."""
