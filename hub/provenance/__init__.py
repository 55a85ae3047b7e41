"""What is behind a token: from a transaction on the chain back to the seals and readings that it minted for."""
