"""What a mount could not save when it ended: kept in a local folder, and put onto the servers later.

manifest    what is kept, as values and as bytes
kept        the folder: written, read and checked
plan        what is to become of one file, given what is on the servers now
apply       doing it
"""
