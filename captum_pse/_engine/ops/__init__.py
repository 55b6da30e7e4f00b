"""What the engine knows about each operation; ``registry`` has the table."""
