/* The community's settings: who may do what, and which mint is GRID. */
#include "accounts.h"
#include "events.h"

#define GRID_DECIMALS 9

struct mint {
    u32 has_authority;
    struct key authority;
    u64 supply_units;
    u8 decimals;
    u8 is_initialized;
    u32 has_freeze_authority;
    struct key freeze_authority;
} PACKED;
_Static_assert(sizeof(struct mint) == 82, "the token program's layout");

/* A mint with extensions is filled up to the size of a token account, says that it is a mint, and lists them. */
enum { MINT_TYPE_AT = 165, MINT_EXTENSIONS_AT = 166, ACCOUNT_TYPE_MINT = 1 };
enum mint_extension { EXTENSION_NONE = 0, EXTENSION_METADATA_POINTER = 18, EXTENSION_TOKEN_METADATA = 19 };

struct extension {
    u16 type;
    u16 length;
    u8 value[];
} PACKED;

/* Others could freeze, tax, burn or stop what members have earned. All of those must be there before the mint is
   initialized, so none can come later. */
static result check_extensions(const u8 *data, u64 bytes) {
    if (bytes == sizeof(struct mint)) {
        return OK;
    }
    REQUIRE(bytes > MINT_TYPE_AT && data[MINT_TYPE_AT] == ACCOUNT_TYPE_MINT, mint_unacceptable);
    u64 at = MINT_EXTENSIONS_AT;
    while (at + sizeof(struct extension) <= bytes) {
        const struct extension *extension = (const struct extension *)(data + at);
        if (extension->type == EXTENSION_NONE) {
            break;
        }
        REQUIRE(extension->type == EXTENSION_METADATA_POINTER || extension->type == EXTENSION_TOKEN_METADATA,
                mint_unacceptable);
        at += sizeof *extension + extension->length;
    }
    return OK;
}

static result check_mint(const struct account *account, const struct key *authority) {
    const struct mint *mint = (const struct mint *)account->data;
    REQUIRE(same_key(account->owner, &TOKEN_2022_PROGRAM), mint_unacceptable);
    REQUIRE(account->data_bytes >= sizeof *mint && mint->is_initialized == 1, mint_unacceptable);
    REQUIRE(mint->has_authority == 1 && same_key(&mint->authority, authority), mint_unacceptable);
    REQUIRE(mint->has_freeze_authority == 0, mint_unacceptable);
    REQUIRE(mint->supply_units == 0 && mint->decimals == GRID_DECIMALS, mint_unacceptable);
    return check_extensions(account->data, account->data_bytes);
}

#define LOADER_PROGRAM_DATA 3

struct program_data {
    u32 state;
    u64 slot;
    u8 has_authority;
    struct key authority;
} PACKED;

/* Who may upgrade the program may also say whose it is; nobody who merely sees it deployed can be first. */
static result check_upgrade_authority(const struct call *call, const struct account *account,
                                      const struct key *authority) {
    struct key address;
    u8 bump;
    struct seed seed = {call->program, sizeof(struct key)};
    TRY(sol_try_find_program_address(&seed, 1, &UPGRADEABLE_LOADER, &address, &bump));
    REQUIRE(same_key(account->address, &address), account_address);
    const struct program_data *program = (const struct program_data *)account->data;
    REQUIRE(same_key(account->owner, &UPGRADEABLE_LOADER), account_address);
    REQUIRE(account->data_bytes >= sizeof *program && program->state == LOADER_PROGRAM_DATA,
            not_the_upgrade_authority);
    REQUIRE(program->has_authority == 1 && same_key(&program->authority, authority), not_the_upgrade_authority);
    return OK;
}

static result initialize(struct call *call) {
    const struct initialize_data *data = (const struct initialize_data *)call->data;
    const struct account *authority = &call->account[0], *grid_mint = &call->account[2];
    const struct account *program_data = &call->account[3], *system = &call->account[4];
    struct account *account = &call->account[1];

    REQUIRE(authority->is_signer, signer_missing);
    TRY(check_upgrade_authority(call, program_data, authority->address));
    REQUIRE(!same_key(&data->issuer, &data->validator), validator_is_issuer);
    struct new_account new_account = {WORD(CONFIG_WORD), 0, sizeof(struct config), CONFIG_TAG};
    TRY(create_account(call, system, account, &new_account));
    TRY(check_mint(grid_mint, account->address));

    struct config *config = (struct config *)account->data;
    config->header.state = CONFIG_RUNNING;
    config->header.kind = GRID_DECIMALS;
    config->domain = data->domain;
    config->admin = *authority->address;
    config->hub = data->hub;
    config->issuer = data->issuer;
    config->validator = data->validator;
    config->grid_mint = *grid_mint->address;
    config->capacity_w_max = data->capacity_w_max;
    config->register_step_wh_max = data->register_step_wh_max;
    return emit(call, account, 0, 0);
}

/* The next admin signs too: a mistyped key would leave the community without one. */
static result configure(struct call *call) {
    const struct configure_data *data = (const struct configure_data *)call->data;
    const struct account *admin = &call->account[0], *account = &call->account[1], *new_admin = &call->account[2];
    struct config *config;

    TRY(open_config(call, account, WRITES, &config));
    REQUIRE(admin->is_signer && new_admin->is_signer, signer_missing);
    REQUIRE(same_key(admin->address, &config->admin), not_the_admin);
    REQUIRE(same_key(new_admin->address, &data->admin), not_the_admin);
    REQUIRE(!same_key(&data->issuer, &data->validator), validator_is_issuer);
    config->admin = data->admin;
    config->hub = data->hub;
    config->issuer = data->issuer;
    config->validator = data->validator;
    config->capacity_w_max = data->capacity_w_max;
    config->register_step_wh_max = data->register_step_wh_max;
    return emit(call, account, 0, 0);
}

/* The hub may stop what looks wrong at once; that all is well again, the admin says. */
static result pause(struct call *call) {
    const struct state_data *data = (const struct state_data *)call->data;
    const struct account *authority = &call->account[0], *account = &call->account[1];
    struct config *config;

    REQUIRE(data->state <= 1, state_unknown);
    TRY(open_config(call, account, WRITES, &config));
    REQUIRE(authority->is_signer, signer_missing);
    int is_admin = same_key(authority->address, &config->admin);
    int is_hub = same_key(authority->address, &config->hub);
    REQUIRE(is_admin || (is_hub && data->state == 1), not_the_admin);
    u8 state = data->state ? CONFIG_PAUSED : CONFIG_RUNNING;
    REQUIRE(config->header.state != state, state_unchanged);
    config->header.state = state;
    return emit(call, account, 0, 0);
}
