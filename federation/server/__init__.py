"""The server's side: what runs on the laptop, behind server.py."""
