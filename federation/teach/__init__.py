"""On a board with a camera: photos are taken, and the newest classifier says what the camera sees."""
