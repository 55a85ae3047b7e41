/* What is told of a change: the whole account as it is now, so that the last event of an account is its state. */
#ifndef EVENTS_H
#define EVENTS_H

#include "layouts.h"

static result emit(struct call *call, const struct account *account, const struct business_id *business_id,
                   u64 amount_units);

#endif
