"""Which images a client has."""
