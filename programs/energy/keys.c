#include "keys.h"
#include "events.h"
#include "signatures.h"

/* The account is never closed, so that a second meter cannot be registered under a key that ever was another's. */
static result create_meter_key(const struct call *call, const struct account *system, struct account *account,
                               const struct statement *statement, const struct key *meter_address) {
    struct new_account new_account = {WORD(METER_KEY_WORD), &statement->key, sizeof(struct meter_key), METER_KEY_TAG};
    TRY(create_account(call, system, account, &new_account));
    struct meter_key *meter_key = (struct meter_key *)account->data;
    meter_key->header.state = METER_KEY_KNOWN;
    meter_key->key = statement->key;
    meter_key->meter = *meter_address;
    meter_key->key_epoch = statement->key_epoch;
    return now_unix_s(&meter_key->registered_at_unix_s);
}

/* The new key alone cannot make itself the meter's, and neither can the hub: the old key or the owner endorses the very
   same bytes. */
static result check_endorsement(const struct account *sysvar, const struct meter *meter,
                                const struct signed_message *statement) {
    struct signed_message endorsement;
    result refusal = signed_before(sysvar, 1, &endorsement);
    REQUIRE(refusal != error_signature_missing, endorsement_missing);
    TRY(refusal);
    REQUIRE(same_key(endorsement.key, &meter->key) || same_key(endorsement.key, &meter->owner), endorsement_missing);
    REQUIRE(endorsement.length == statement->length, message_differs);
    for (u64 i = 0; i < sizeof(struct statement); i++) {
        REQUIRE(endorsement.bytes[i] == statement->bytes[i], message_differs);
    }
    return OK;
}

/* The new key may begin lower and earlier; what the old one reached stays known, so that no time allows production
   twice. A leap that was written off is not reached: it took no time. */
INLINE void remember_mark(struct meter *meter) {
    u64 gone_wh = meter->written_off_production_wh;
    u64 reached_wh = meter->production_wh > gone_wh ? meter->production_wh - gone_wh : 0;
    if (reached_wh > meter->high_production_wh) {
        meter->high_production_wh = reached_wh;
    }
    if (meter->closed_until_unix_s > meter->high_until_unix_s) {
        meter->high_until_unix_s = meter->closed_until_unix_s;
    }
}

static result rotate_meter_key(struct call *call) {
    const struct account *hub = &call->account[0], *account = &call->account[2];
    const struct account *sysvar = &call->account[4], *system = &call->account[5];
    struct config *config;
    struct meter *meter;
    struct signed_message message;
    const struct statement *statement;

    TRY(open_config_for_hub(call, hub, &call->account[1], &config));
    TRY(open_meter(call, account, &meter));
    REQUIRE(meter->header.state != METER_DEACTIVATED, meter_deactivated);
    TRY(signed_before(sysvar, 2, &message));
    TRY(check_statement(&message, config->domain, &statement));
    TRY(check_endorsement(sysvar, meter, &message));

    REQUIRE(same_key(&statement->meter_id.key, &meter->meter_id), account_address);
    REQUIRE(same_key(&statement->owner, &meter->owner), not_the_owner);
    REQUIRE(statement->kind == meter->header.kind && statement->measurement == meter->measurement, kind_unknown);
    REQUIRE(statement->key_epoch == (u64)meter->key_epoch + 1, epoch_differs);
    i64 closed_until_unix_s = interval_at_or_before(statement->valid_from_unix_s);
    REQUIRE(statement->production_wh <= meter->production_wh && statement->consumption_wh <= meter->consumption_wh &&
                statement->surplus_wh <= meter->surplus_wh && closed_until_unix_s <= meter->closed_until_unix_s,
            counters_beyond);

    TRY(create_meter_key(call, system, &call->account[3], statement, account->address));
    remember_mark(meter);
    meter->key = statement->key;
    meter->key_epoch = statement->key_epoch;
    meter->flags = statement->flags;
    meter->sequence = 0;
    meter->closed_until_unix_s = closed_until_unix_s;
    meter->production_wh = statement->production_wh;
    meter->consumption_wh = statement->consumption_wh;
    meter->surplus_wh = statement->surplus_wh;
    return emit(call, account, 0, 0);
}
