"""What a mount could not save when it ended: kept in a local folder, and written to the servers later.

manifest what is kept, as values and as bytes kept the folder: written, read and checked plan what to do with one file,
given what is on the servers now apply doing it
"""
