"""The client's side: what runs on the device, around the script's FlowerClient."""
