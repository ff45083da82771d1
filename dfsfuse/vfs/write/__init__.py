"""From write() to the map: buffers, uploads, saving, what is left over at the end."""
