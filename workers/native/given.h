/* What the kernel was given of folders: one table for all workers of a mount, a hint from end to end.

   A READDIRPLUS saves a LOOKUP for each name that is looked at next, and costs as much as some of them where it is not, or
   where the kernel has the name already. The kernel does not know when it asks; we know what it was given, and for how
   long it may use it. So a folder that was given whole is listed by names alone for half of that time. What the kernel
   has dropped meanwhile it looks up, and an eighth of the names looked up ends this.

   A folder that is opened again in this time, and unchanged, is likely to be opened once more: from then on the kernel keeps
   the listing itself (FOPEN_CACHE_DIR), until an opening finds the folder changed and so makes it drop what it has.
   Within one opening the kernel sees to that by mtime, as often as it asks for attributes. A change that falls into the
   same tick of the clock that dates it could go unseen, so a folder that was changed a moment ago does not count as
   unchanged. */
#ifndef RINGMOUNT_GIVEN_H
#define RINGMOUNT_GIVEN_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

enum { FOPEN_KEEP_CACHE = 1 << 1, FOPEN_CACHE_DIR = 1 << 3 };

size_t rm_given_size(void);

/* Whether the kernel was given all names of the folder less than `lifetime` ns ago. */
bool rm_given_whole(void *table, uint64_t node, uint64_t lifetime);

/* A READDIRPLUS from `begin` on gave the names up to `end`, `names` of them with nodes, as they were at `since` (rm_now). */
void rm_given_names(void *table, uint64_t node, uint64_t begin, uint64_t end, uint32_t names, uint64_t since);

/* A listing came to its end, at this offset. */
void rm_given_end(void *table, uint64_t node, uint64_t offset);

/* A name in the folder was looked up, and is there. */
void rm_given_lookup(void *table, uint64_t node);

/* FOPEN_* for the folder, which is opened now and has these attributes. */
uint32_t rm_given_open(void *table, uint64_t node, uint64_t lifetime, const struct stat *st);
#endif
