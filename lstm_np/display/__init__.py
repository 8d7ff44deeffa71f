"""Text, bars and pictures of plain arrays."""
