"""From write() to the map: buffers, uploads, saving, and what is left over at the end."""
