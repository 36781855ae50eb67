"""Between the scripts and Flower's engines: the nodes as the server sees them, and what a node does with a question."""
