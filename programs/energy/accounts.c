#include "accounts.h"

#define ACCOUNT_OVERHEAD_BYTES 128

/* The exemption threshold is a double (2.0 for years, later perhaps 1.0), and this machine has no floating point: take
   it apart. Its mantissa keeps 32 bits, rounded up, which is exact for every number that has been in use. */
static result rent_free_lamports(u64 bytes, u64 *lamports) {
    struct rent rent;
    TRY(sol_get_rent_sysvar(&rent));
    u64 a_year, scaled;
    TRY(product_64(bytes + ACCOUNT_OVERHEAD_BYTES, rent.lamports_per_byte_year, &a_year));
    u64 exponent = rent.exemption_years_as_double >> 52;
    u64 fraction = rent.exemption_years_as_double & ((1ULL << 52) - 1);
    u64 mantissa = ((1ULL << 52 | fraction) + (1ULL << 21) - 1) >> 21;
    u64 shift = 1023 + 31 - exponent;
    REQUIRE(shift < 64, overflow);
    TRY(product_64(a_year, mantissa, &scaled));
    TRY(sum(scaled, (1ULL << shift) - 1, &scaled));
    *lamports = scaled >> shift;
    return OK;
}

enum system_instruction { SYSTEM_ASSIGN = 1, SYSTEM_TRANSFER = 2, SYSTEM_ALLOCATE = 8 };

struct system_amount {
    u32 instruction;
    u64 amount;
} PACKED;

struct system_owner {
    u32 instruction;
    struct key owner;
} PACKED;

static result transfer(const struct call *call, const struct account *from, const struct account *to, u64 lamports) {
    struct system_amount data = {SYSTEM_TRANSFER, lamports};
    struct call_account accounts[] = {{from->address, 1, 1}, {to->address, 1, 0}};
    struct call_instruction instruction = {&SYSTEM_PROGRAM, accounts, 2, &data, sizeof data};
    return sol_invoke_signed_c(&instruction, call->account, call->accounts, 0, 0);
}

static result take(const struct call *call, const struct account *account, const void *data, u64 data_bytes,
                   const struct seeds *seeds) {
    struct call_account accounts[] = {{account->address, 1, 1}};
    struct call_instruction instruction = {&SYSTEM_PROGRAM, accounts, 1, data, data_bytes};
    return sol_invoke_signed_c(&instruction, call->account, call->accounts, seeds, 1);
}

/* In three steps: the system program's create_account refuses an address that already has lamports, and anybody can
   send some there. */
static result create_account(const struct call *call, const struct account *system, struct account *account,
                             const struct new_account *new_account) {
    const struct account *payer = &call->account[0];
    struct key address;
    u8 bump;
    struct seed seed[3] = {{new_account->word, new_account->word_bytes}};
    u64 count = 1;
    if (new_account->key) {
        seed[count++] = (struct seed){new_account->key, sizeof(struct key)};
    }
    TRY(sol_try_find_program_address(seed, count, call->program, &address, &bump));
    REQUIRE(same_key(&address, account->address), account_address);
    REQUIRE(account->is_writable && payer->is_writable, account_not_writable);
    REQUIRE(same_key(system->address, &SYSTEM_PROGRAM), program_differs);
    REQUIRE(same_key(account->owner, &SYSTEM_PROGRAM) && account->data_bytes == 0, already_exists);

    u64 lamports;
    TRY(rent_free_lamports(new_account->bytes, &lamports));
    if (*account->lamports < lamports) {
        TRY(transfer(call, payer, account, lamports - *account->lamports));
    }
    seed[count++] = (struct seed){&bump, sizeof bump};
    struct seeds seeds = {seed, count};
    struct system_amount allocate = {SYSTEM_ALLOCATE, new_account->bytes};
    TRY(take(call, account, &allocate, sizeof allocate, &seeds));
    account->data_bytes = new_account->bytes;
    struct system_owner assign = {SYSTEM_ASSIGN, *call->program};
    TRY(take(call, account, &assign, sizeof assign, &seeds));

    struct header *header = (struct header *)account->data;
    header->tag = new_account->tag;
    header->version = LAYOUT_VERSION;
    header->bump = bump;
    header->address = *account->address;
    return OK;
}
