"""What a mount could not save when it ended: kept in a local folder, and put onto the servers later.

kept        the folder's format: written, read and checked
plan        what is to become of one file, given what is on the servers now. Pure
apply       doing it
"""
