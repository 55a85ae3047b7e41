/* Who the members and their meters are. */
#include "accounts.h"
#include "events.h"
#include "keys.h"
#include "signatures.h"

static result register_user(struct call *call) {
    const struct register_user_data *data = (const struct register_user_data *)call->data;
    const struct account *hub = &call->account[0], *wallet = &call->account[1], *system = &call->account[4];
    struct account *account = &call->account[3];
    struct config *config;

    TRY(open_config_for_hub(call, hub, &call->account[2], &config));
    REQUIRE(wallet->is_signer, signer_missing);
    REQUIRE(data->kind == USER_PROSUMER || data->kind == USER_CONSUMER, kind_unknown);
    struct new_account new_account = {WORD(USER_WORD), wallet->address, sizeof(struct user), USER_TAG};
    TRY(create_account(call, system, account, &new_account));

    struct user *user = (struct user *)account->data;
    user->header.state = USER_ACTIVE;
    user->header.kind = data->kind;
    user->wallet = *wallet->address;
    TRY(now_unix_s(&user->registered_at_unix_s));
    return emit(call, account, 0, 0);
}

/* Derived here once and kept, so that what a meter earns can reach nobody but its owner. */
static result check_grid_account(const struct account *account, const struct key *owner, const struct key *mint) {
    struct key address;
    u8 bump;
    struct seed seed[] = {{owner, sizeof *owner}, {&TOKEN_2022_PROGRAM, sizeof(struct key)}, {mint, sizeof *mint}};
    TRY(sol_try_find_program_address(seed, 3, &ASSOCIATED_TOKEN_PROGRAM, &address, &bump));
    REQUIRE(same_key(account->address, &address), grid_account_differs);
    return OK;
}

static const struct key NO_PREDECESSOR = {{0, 0, 0, 0}};

/* A meter may have produced since its statement. Were that as old as it likes, whoever has the hub's key could invent a
   meter and claim years of production at once. */
#define STATEMENT_AGE_MAX_S (366LL * 86400)

static result register_meter(struct call *call) {
    const struct register_meter_data *data = (const struct register_meter_data *)call->data;
    const struct account *hub = &call->account[0], *owner = &call->account[1], *grid_account = &call->account[6];
    const struct account *sysvar = &call->account[7], *system = &call->account[8];
    struct account *user_account = &call->account[3], *account = &call->account[4];
    struct config *config;
    struct user *user;
    struct signed_message message;
    const struct statement *statement;
    i64 now;

    TRY(open_config_for_hub(call, hub, &call->account[2], &config));
    REQUIRE(owner->is_signer, signer_missing);
    TRY(open_user(call, user_account, &user));
    REQUIRE(same_key(&user->wallet, owner->address), wallet_differs);
    REQUIRE(user->header.state == USER_ACTIVE, user_not_active);
    REQUIRE(data->capacity_w > 0 && data->capacity_w <= config->capacity_w_max, capacity_out_of_range);
    REQUIRE(data->register_step_wh > 0 && data->register_step_wh <= config->register_step_wh_max,
            register_step_out_of_range);
    TRY(signed_before(sysvar, 1, &message));
    TRY(check_statement(&message, config->domain, &statement));
    REQUIRE(same_key(&statement->owner, owner->address), not_the_owner);
    REQUIRE(statement->key_epoch == 1, epoch_differs);
    REQUIRE(same_key(&statement->last_seal_hash, &NO_PREDECESSOR), statement_malformed);
    TRY(now_unix_s(&now));
    REQUIRE(statement->valid_from_unix_s >= now - STATEMENT_AGE_MAX_S, statement_too_old);
    TRY(check_grid_account(grid_account, owner->address, &config->grid_mint));

    struct new_account new_account = {WORD(METER_WORD), &statement->meter_id.key, sizeof(struct meter), METER_TAG};
    TRY(create_account(call, system, account, &new_account));
    TRY(create_meter_key(call, system, &call->account[5], statement, account->address));

    struct meter *meter = (struct meter *)account->data;
    meter->header.state = METER_ACTIVE;
    meter->header.kind = statement->kind;
    meter->meter_id = statement->meter_id.key;
    meter->owner = *owner->address;
    meter->key = statement->key;
    meter->grid_account = *grid_account->address;
    meter->key_epoch = statement->key_epoch;
    meter->measurement = statement->measurement;
    meter->flags = statement->flags;
    meter->capacity_w = data->capacity_w;
    meter->register_step_wh = data->register_step_wh;
    meter->closed_until_unix_s = interval_at_or_before(statement->valid_from_unix_s);
    meter->production_wh = statement->production_wh;
    meter->consumption_wh = statement->consumption_wh;
    meter->surplus_wh = statement->surplus_wh;
    meter->settled_wh = statement->surplus_wh;
    meter->base_production_wh = statement->production_wh;
    meter->base_surplus_wh = statement->surplus_wh;
    meter->registered_at_unix_s = now;
    REQUIRE(!__builtin_add_overflow(user->meters, 1, &user->meters), overflow);
    REQUIRE(!__builtin_add_overflow(user->meters_ever, 1, &user->meters_ever), overflow);
    TRY(emit(call, account, 0, 0));
    return emit(call, user_account, 0, 0);
}

/* These two go on while all else is paused: a pause must not keep a stolen meter at work. */

static result set_meter_status(struct call *call) {
    const struct state_data *data = (const struct state_data *)call->data;
    const struct account *hub = &call->account[0], *account = &call->account[2];
    struct config *config;
    struct meter *meter;

    TRY(open_config(call, &call->account[1], READS, &config));
    REQUIRE(hub->is_signer, signer_missing);
    REQUIRE(same_key(hub->address, &config->hub), not_the_hub);
    TRY(open_meter(call, account, &meter));
    REQUIRE(data->state == METER_ACTIVE || data->state == METER_SUSPENDED, state_unknown);
    REQUIRE(meter->header.state != METER_DEACTIVATED, meter_deactivated);
    REQUIRE(meter->header.state != data->state, state_unchanged);
    meter->header.state = data->state;
    return emit(call, account, 0, 0);
}

static result deactivate_meter(struct call *call) {
    const struct account *authority = &call->account[0];
    const struct account *account = &call->account[2], *user_account = &call->account[3];
    struct config *config;
    struct meter *meter;
    struct user *user;

    TRY(open_config(call, &call->account[1], READS, &config));
    REQUIRE(authority->is_signer, signer_missing);
    TRY(open_meter(call, account, &meter));
    REQUIRE(same_key(authority->address, &config->hub) || same_key(authority->address, &meter->owner), not_the_owner);
    TRY(open_user(call, user_account, &user));
    REQUIRE(same_key(&user->wallet, &meter->owner), wallet_differs);
    REQUIRE(meter->header.state != METER_DEACTIVATED, meter_deactivated);
    meter->header.state = METER_DEACTIVATED;
    REQUIRE(!__builtin_sub_overflow(user->meters, 1, &user->meters), overflow);
    TRY(emit(call, account, 0, 0));
    return emit(call, user_account, 0, 0);
}
