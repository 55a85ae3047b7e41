/* Keys of meters: one key, one meter, for ever. */
#ifndef KEYS_H
#define KEYS_H

#include "accounts.h"

static result create_meter_key(const struct call *call, const struct account *system, struct account *account,
                               const struct statement *statement, const struct key *meter_address);

#endif
