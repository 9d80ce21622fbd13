"""What answers questions about images, on top of the two towers of a `CLIP`."""
