/* Open folders: opened, listed, closed. */
#include "fast_call.h"
