"""Between the scripts and Flower's engines: the nodes as the server sees them, and how a node answers a question."""
