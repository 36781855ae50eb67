"""What belongs to a device itself: what it can tell, what a fit costs it, imports that are light enough for it."""
