"""What server and clients say to each other: both sides."""

# Limits the model's size. Server and clients must agree, and the defaults of Flower's versions do not.
MAX_MESSAGE_BYTES = 512 * 1024**2
