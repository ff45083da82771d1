"""Known deviations of backends from the suite, with reasons. Each entry must fail: one that passes is an error too.

An entry is (backend, case) -> the reason, worded for docs and users. Only cases that need a kernel are skipped, and
only for the library alone.
"""

from __future__ import annotations

_HIDDEN = (
    "libfuse2 knows files by path: a file that loses its name while it is open is renamed to .fuse_hidden... first and "
    "removed at its last close. (Its option hard_remove is no way out: fstat on such a file then fails.)"
)

_NO_FALLOCATE = "fusepy has no fallocate, and libfuse2 no lseek: a file is all data."

_NO_NOTIFICATIONS = "libfuse2 cannot ask the kernel for what was written through a mapping and not handed over yet."

_NO_FLAGS = "libfuse2 does not pass on the flags of renameat2."

DEVIATIONS: dict[tuple[str, str], str] = {
    ("mount", "holes_are_punched_and_found"): _NO_FALLOCATE,
    ("mount", "space_is_allocated_and_zeroed"): _NO_FALLOCATE,
    ("mount", "whoever_else_allocates_or_copies_into_a_program_ends_setuid"): _NO_FALLOCATE,
    ("mount", "data_and_holes_of_a_sparse_file_are_found"): _NO_FALLOCATE,
    ("mount", "a_time_that_is_set_after_a_mapped_write_stays"): _NO_NOTIFICATIONS,
    ("mount", "rename_can_be_told_not_to_replace"): _NO_FLAGS,
    ("mount", "names_are_exchanged"): _NO_FLAGS,
    ("mount", "a_rename_can_leave_a_whiteout"): _NO_FLAGS,
    ("mount", "an_unlinked_open_file_has_no_name"): _HIDDEN,
    ("mount", "a_name_that_is_replaced_is_always_there"): _HIDDEN + " So for a moment the name is not there.",
}
