/* What the runtime gives a program: its input, its system calls, its memory. */
#ifndef RUNTIME_H
#define RUNTIME_H

#include "errors.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
typedef unsigned __int128 u128;

#define PACKED __attribute__((packed))
#define INLINE static inline __attribute__((always_inline))
/* A call costs five units of a few thousand, and each byte of program is rent for ever. No function has more than five
   arguments: the machine passes them in registers. */
#define OUT_OF_LINE static __attribute__((noinline))

/* Zero, or what the transaction fails with. The runtime undoes everything then, so nobody cleans up. */
typedef u64 result;
#define OK 0

#define REQUIRE(condition, name)         \
    do {                                 \
        if (!(condition)) {              \
            return error_##name;         \
        }                                \
    } while (0)

#define TRY(expression)                  \
    do {                                 \
        result failed = (expression);    \
        if (failed != OK) {              \
            return failed;               \
        }                                \
    } while (0)

/* Packed: keys lie at any address in the instructions sysvar. */
struct key {
    u64 word[4];
} PACKED;

INLINE int same_key(const struct key *one, const struct key *other) {
    return one->word[0] == other->word[0] && one->word[1] == other->word[1] && one->word[2] == other->word[2] &&
           one->word[3] == other->word[3];
}

/* The layout that the cross-program call reads (SolAccountInfo). All pointers lead into the loader's input, so that an
   account that was passed twice is one account. */
struct account {
    const struct key *address;
    u64 *lamports;
    u64 data_bytes;
    u8 *data;
    const struct key *owner;
    u64 rent_epoch;
    u8 is_signer;
    u8 is_writable;
    u8 is_executable;
};

#define ACCOUNTS_MAX 9
#define EVENT_BYTES_MAX 352

struct call {
    struct account account[ACCOUNTS_MAX];
    u64 accounts;
    const u8 *data;
    u64 data_bytes;
    const struct key *program;
    u8 instruction;
    u8 event[EVENT_BYTES_MAX];
};

struct seed {
    const void *bytes;
    u64 length;
};

struct seeds {
    const struct seed *seed;
    u64 count;
};

struct call_account {
    const struct key *address;
    u8 is_writable;
    u8 is_signer;
};

struct call_instruction {
    const struct key *program;
    const struct call_account *accounts;
    u64 accounts_count;
    const void *data;
    u64 data_bytes;
};

struct clock {
    u64 slot;
    i64 epoch_start_unix_s;
    u64 epoch;
    u64 leader_schedule_epoch;
    i64 now_unix_s;
};

struct rent {
    u64 lamports_per_byte_year;
    u64 exemption_years_as_double;
    u8 burn_percent;
};

struct log_field {
    const void *bytes;
    u64 length;
};

extern u64 sol_memcpy_(void *to, const void *from, u64 bytes);
extern u64 sol_log_data(const struct log_field *fields, u64 count);
extern u64 sol_get_clock_sysvar(struct clock *clock);
extern u64 sol_get_rent_sysvar(struct rent *rent);
extern u64 sol_try_find_program_address(const struct seed *seeds, u64 count, const struct key *program,
                                        struct key *address, u8 *bump);
extern u64 sol_invoke_signed_c(const struct call_instruction *instruction, const struct account *accounts,
                               u64 accounts_count, const struct seeds *signers, u64 signers_count);

/* A program has no writable globals; the heap is its own for one instruction, zeroed. Only the call lies there. */
#define HEAP 0x300000000ULL
#define HEAP_BYTES 32768
_Static_assert(sizeof(struct call) <= HEAP_BYTES, "the heap");

/* Each account in the input is followed by room to grow. */
#define ACCOUNT_GROWTH_BYTES 10240
#define ACCOUNT_IS_FIRST_SEEN 0xff

struct input_account {
    u8 first_seen_at;
    u8 is_signer;
    u8 is_writable;
    u8 is_executable;
    u32 zero;
    struct key address;
    struct key owner;
    u64 lamports;
    u64 data_bytes;
    u8 data[];
};
_Static_assert(sizeof(struct input_account) == 88, "the loader's layout");

/* The input is the runtime's own, so its lengths are true. Accounts that no instruction needs are only stepped over. */
INLINE void read_input(u8 *input, struct call *call) {
    u64 accounts = *(u64 *)input;
    u8 *at = input + 8;
    for (u64 i = 0; i < accounts; i++) {
        struct input_account *given = (struct input_account *)at;
        if (given->first_seen_at != ACCOUNT_IS_FIRST_SEEN) {
            if (i < ACCOUNTS_MAX) {
                call->account[i] = call->account[given->first_seen_at];
            }
            at += 8;
            continue;
        }
        at = given->data + ((given->data_bytes + ACCOUNT_GROWTH_BYTES + 7) & ~7ULL);
        if (i < ACCOUNTS_MAX) {
            call->account[i] = (struct account){
                .address = &given->address,
                .lamports = &given->lamports,
                .data_bytes = given->data_bytes,
                .data = given->data,
                .owner = &given->owner,
                .rent_epoch = *(u64 *)at,
                .is_signer = given->is_signer,
                .is_writable = given->is_writable,
                .is_executable = given->is_executable,
            };
        }
        at += 8;
    }
    call->accounts = accounts < ACCOUNTS_MAX ? accounts : ACCOUNTS_MAX;
    call->data_bytes = *(u64 *)at;
    call->data = at + 8;
    call->program = (const struct key *)(at + 8 + call->data_bytes);
}

INLINE result now_unix_s(i64 *now) {
    struct clock clock;
    TRY(sol_get_clock_sysvar(&clock));
    *now = clock.now_unix_s;
    return OK;
}

INLINE result sum(u64 one, u64 other, u64 *total) {
    REQUIRE(!__builtin_add_overflow(one, other, total), overflow);
    return OK;
}

/* By halves, because the compiler would call a library that is not there. Two factors of 64 bits never overflow 128. */
INLINE u128 product(u64 one, u64 other) {
    u64 one_low = (u32)one, one_high = one >> 32, other_low = (u32)other, other_high = other >> 32;
    u64 low = one_low * other_low;
    u64 middle = one_high * other_low + (low >> 32);
    u64 middle_2 = one_low * other_high + (u32)middle;
    u64 high = one_high * other_high + (middle >> 32) + (middle_2 >> 32);
    return (u128)high << 64 | (middle_2 << 32 | (u32)low);
}

static result product_64(u64 one, u64 other, u64 *total) {
    u128 exact = product(one, other);
    REQUIRE(exact >> 64 == 0, overflow);
    *total = (u64)exact;
    return OK;
}

#endif
