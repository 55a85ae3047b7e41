/* Signatures of meters: the chain's Ed25519 program verifies them in an instruction of the same transaction, and the
   instructions sysvar shows us what it was given. */
#ifndef SIGNATURES_H
#define SIGNATURES_H

#include "addresses.h"
#include "layouts.h"

/* The limits of protocol/limits.py. All sums below rest on them: no counter has more than 53 bits. */
#define ENERGY_WH_MAX ((1ULL << 53) - 1)
#define SEQUENCE_MAX ((1ULL << 53) - 1)
#define KEY_EPOCH_MAX ((1U << 31) - 1)
#define TIME_MIN_UNIX_S 1577836800LL
#define TIME_MAX_UNIX_S 4102444800LL
#define SETTLEMENT_INTERVAL_S 900
#define FLAG_METER_REPLACED 2
#define FLAGS_ALL 3

/* Where netting goes on from; a time of the protocol is positive, and the machine divides without a sign. */
INLINE i64 interval_at_or_before(i64 unix_s) {
    return unix_s - (i64)((u64)unix_s % SETTLEMENT_INTERVAL_S);
}

struct signed_message {
    const struct key *key;
    const u8 *bytes;
    u64 length;
};

static result signed_before(const struct account *sysvar, u64 back, struct signed_message *message);
static result check_seal(const struct signed_message *message, u64 domain, const struct seal **seal);
static result check_statement(const struct signed_message *message, u64 domain, const struct statement **statement);

#endif
