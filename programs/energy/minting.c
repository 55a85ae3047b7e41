/* From what a meter signed to GRID. Everything is cumulative, so that repeating or skipping a seal is harmless. */
#include "accounts.h"
#include "events.h"
#include "signatures.h"

#define FUTURE_MAX_S 300
#define UNITS_PER_WH 1000000

INLINE result seal_before(const struct account *sysvar, const struct config *config, const struct meter *meter,
                          const struct seal **seal) {
    struct signed_message message;
    TRY(signed_before(sysvar, 1, &message));
    REQUIRE(same_key(message.key, &meter->key), key_differs);
    return check_seal(&message, config->domain, seal);
}

INLINE result check_is_later(const struct meter *meter, const struct seal *seal) {
    i64 now;
    REQUIRE(seal->sequence > meter->sequence, sequence_not_later);
    REQUIRE(seal->closed_until_unix_s > meter->closed_until_unix_s, interval_not_later);
    TRY(now_unix_s(&now));
    REQUIRE(seal->closed_until_unix_s - FUTURE_MAX_S <= now, from_the_future);
    return OK;
}

/* What a seal adds to the meter. Counters have at most 53 bits (signatures.h), so no difference overflows. */
struct change {
    i64 production_wh;
    i64 consumption_wh;
    i64 surplus_wh;
};

INLINE struct change change_of(const struct meter *meter, const struct seal *seal) {
    return (struct change){
        (i64)(seal->production_wh - meter->production_wh),
        (i64)(seal->consumption_wh - meter->consumption_wh),
        (i64)(seal->surplus_wh - meter->surplus_wh),
    };
}

INLINE i64 net_wh(const struct change *change) {
    i64 net = change->production_wh - change->consumption_wh;
    return net > 0 ? net : 0;
}

/* Production × 3600 ≤ capacity × elapsed × 110 % + step × 3600, all of it times ten: exact, in whole numbers. */
OUT_OF_LINE int within_capacity(const struct meter *meter, u64 production_wh, u64 elapsed_s) {
    u128 most = product(meter->capacity_w, elapsed_s * 11) + (u64)meter->register_step_wh * 36000;
    return product(production_wh, 36000) <= most;
}

/* A key that began before the mark of those before it goes once more through time that was theirs. */
INLINE int is_beyond_mark(const struct meter *meter, const struct seal *seal) {
    return meter->closed_until_unix_s < meter->high_until_unix_s && seal->production_wh > meter->high_production_wh;
}

INLINE int within_capacity_since_mark(const struct meter *meter, const struct seal *seal) {
    i64 elapsed_s = seal->closed_until_unix_s - meter->high_until_unix_s;
    return within_capacity(meter, seal->production_wh - meter->high_production_wh, elapsed_s > 0 ? (u64)elapsed_s : 0);
}

INLINE result check_plausible(const struct meter *meter, const struct seal *seal, const struct change *change) {
    REQUIRE(meter->header.state == METER_ACTIVE, meter_not_active);
    REQUIRE(change->production_wh >= 0 && change->consumption_wh >= 0 && change->surplus_wh >= 0, counter_decreased);
    u64 elapsed_s = (u64)(seal->closed_until_unix_s - meter->closed_until_unix_s);
    REQUIRE(within_capacity(meter, (u64)change->production_wh, elapsed_s), over_capacity);
    REQUIRE(!is_beyond_mark(meter, seal) || within_capacity_since_mark(meter, seal), over_capacity);
    REQUIRE(change->surplus_wh >= net_wh(change) && change->surplus_wh <= change->production_wh,
            surplus_out_of_bounds);
    return OK;
}

INLINE void advance(struct meter *meter, const struct seal *seal) {
    meter->sequence = seal->sequence;
    meter->closed_until_unix_s = seal->closed_until_unix_s;
    meter->production_wh = seal->production_wh;
    meter->consumption_wh = seal->consumption_wh;
    meter->surplus_wh = seal->surplus_wh;
}

static result submit_reading(struct call *call) {
    const struct business_data *data = (const struct business_data *)call->data;
    const struct account *account = &call->account[2];
    struct config *config;
    struct meter *meter;
    const struct seal *seal;

    TRY(open_config_for_hub(call, &call->account[0], &call->account[1], &config));
    TRY(open_meter(call, account, &meter));
    TRY(seal_before(&call->account[3], config, meter, &seal));
    TRY(check_is_later(meter, seal));
    struct change change = change_of(meter, seal);
    TRY(check_plausible(meter, seal, &change));
    advance(meter, seal);
    return emit(call, account, &data->business_id, 0);
}

#define TOKEN_MINT_TO 7

struct mint_to {
    u8 instruction;
    u64 amount_units;
} PACKED;

static result mint_grid(const struct call *call, const struct account *config, const struct account *grid_mint,
                        const struct account *grid_account, u64 amount_units) {
    const struct header *header = (const struct header *)config->data;
    struct mint_to data = {TOKEN_MINT_TO, amount_units};
    struct call_account accounts[] = {
        {grid_mint->address, 1, 0}, {grid_account->address, 1, 0}, {config->address, 0, 1}};
    struct call_instruction instruction = {&TOKEN_2022_PROGRAM, accounts, 3, &data, sizeof data};
    struct seed seed[] = {{WORD(CONFIG_WORD)}, {&header->bump, 1}};
    struct seeds seeds = {seed, 2};
    return sol_invoke_signed_c(&instruction, call->account, call->accounts, &seeds, 1);
}

static result settle_meter_balance(struct call *call) {
    const struct business_data *data = (const struct business_data *)call->data;
    const struct account *config_account = &call->account[1], *account = &call->account[2];
    const struct account *grid_mint = &call->account[3], *grid_account = &call->account[4];
    struct config *config;
    struct meter *meter;

    TRY(open_config_for_hub(call, &call->account[0], config_account, &config));
    TRY(open_meter(call, account, &meter));
    REQUIRE(same_key(grid_mint->address, &config->grid_mint), mint_differs);
    REQUIRE(same_key(grid_account->address, &meter->grid_account), grid_account_differs);
    REQUIRE(grid_mint->is_writable && grid_account->is_writable, account_not_writable);
    REQUIRE(same_key(call->account[5].address, &TOKEN_2022_PROGRAM), program_differs);

    u64 gone_wh, amount_units = 0;
    TRY(sum(meter->written_off_surplus_wh, meter->settled_wh, &gone_wh));
    int is_renewable = meter->header.kind == METER_SOLAR || meter->header.kind == METER_WIND;
    if (is_renewable && meter->surplus_wh > gone_wh) {
        u64 owed_wh = meter->surplus_wh - gone_wh;
        TRY(product_64(owed_wh, UNITS_PER_WH, &amount_units));
        meter->settled_wh += owed_wh;
        TRY(mint_grid(call, config_account, grid_mint, grid_account, amount_units));
    }
    return emit(call, account, &data->business_id, amount_units);
}

/* What no plausible seal may do, this may: go past one whose energy is not believed, as long as nobody gains by it. */
static result write_off(struct call *call) {
    const struct write_off_data *data = (const struct write_off_data *)call->data;
    const struct account *account = &call->account[2];
    struct config *config;
    struct meter *meter;
    const struct seal *seal;

    TRY(open_config_for_hub(call, &call->account[0], &call->account[1], &config));
    TRY(open_meter(call, account, &meter));
    TRY(seal_before(&call->account[3], config, meter, &seal));
    struct change change = change_of(meter, seal);
    if (seal->sequence == meter->sequence) {
        REQUIRE(change.production_wh == 0 && change.consumption_wh == 0 && change.surplus_wh == 0 &&
                    seal->closed_until_unix_s == meter->closed_until_unix_s,
                counters_differ);
    } else {
        TRY(check_is_later(meter, seal));
    }
    REQUIRE(data->production_wh >= meter->written_off_production_wh &&
                data->surplus_wh >= meter->written_off_surplus_wh,
            write_off_decreased);
    REQUIRE(data->production_wh <= seal->production_wh && data->surplus_wh <= seal->surplus_wh,
            write_off_over_counter);
    i64 production_gain_wh = change.production_wh - (i64)(data->production_wh - meter->written_off_production_wh);
    i64 surplus_gain_wh = change.surplus_wh - (i64)(data->surplus_wh - meter->written_off_surplus_wh);
    if (production_gain_wh > 0 || surplus_gain_wh > 0) {
        TRY(check_plausible(meter, seal, &change));
        REQUIRE(surplus_gain_wh <= net_wh(&change), write_off_gives);
    }
    advance(meter, seal);
    meter->written_off_production_wh = data->production_wh;
    meter->written_off_surplus_wh = data->surplus_wh;
    return emit(call, account, &data->business_id, 0);
}
