/* Whose file is made: credentials.py says why, and how it is done there. */
#define _GNU_SOURCE
#include <stdlib.h>

#include "fast_call.h"
#include "system.h"

static bool is_own(const struct call *call)
{
	const struct rm_fast_setup *setup = call->setup;

	return setup->checks || !setup->switches || (call->uid == setup->uid && call->gid == setup->gid);
}

/* What is made from here on is the caller's, made with the caller's umask. False: the ids could not be had. */
bool rm_become_owner(struct call *call, uint32_t mask)
{
	if (mask != *call->setup->umask) {
		umask(mask);
		*call->setup->umask = mask;
	}
	if (is_own(call) || rm_act_as(call->uid, call->gid, call->setup->capabilities) == 0)
		return true;
	rm_become_self(call);
	return false;
}

void rm_become_self(struct call *call)
{
	int error = errno;

	if (!is_own(call) && rm_act_as(call->setup->uid, call->setup->gid, NULL))
		abort();
	errno = error;
}
