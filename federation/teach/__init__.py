"""For a board with a camera: take photos, and recognise with the newest classifier what the camera sees."""
