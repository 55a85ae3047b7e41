/* The energy program: docs/program.md is its interface. This file is what the compiler is given; each of the others is
   one concern, and all are one translation unit, so that only the entry point has a name outside. */
#include "accounts.c"
#include "config.c"
#include "events.c"
#include "keys.c"
#include "minting.c"
#include "registry.c"
#include "signatures.c"

/* Number, name, bytes of data after the number, accounts. */
#define INSTRUCTIONS(INSTRUCTION)                                            \
    INSTRUCTION(0, initialize, sizeof(struct initialize_data), 5)            \
    INSTRUCTION(1, register_user, sizeof(struct register_user_data), 5)      \
    INSTRUCTION(2, register_meter, sizeof(struct register_meter_data), 9)    \
    INSTRUCTION(3, rotate_meter_key, 0, 6)                                   \
    INSTRUCTION(4, submit_reading, sizeof(struct business_data), 4)          \
    INSTRUCTION(5, settle_meter_balance, sizeof(struct business_data), 6)    \
    INSTRUCTION(6, write_off, sizeof(struct write_off_data), 4)              \
    INSTRUCTION(7, set_meter_status, sizeof(struct state_data), 3)           \
    INSTRUCTION(8, deactivate_meter, 0, 4)                                   \
    INSTRUCTION(9, pause, sizeof(struct state_data), 2)                      \
    INSTRUCTION(10, configure, sizeof(struct configure_data), 3)

#define DISPATCH(number, handler, bytes, count)                              \
    case number:                                                             \
        REQUIRE(call->data_bytes == (bytes), instruction_malformed);         \
        REQUIRE(call->accounts >= (count), accounts_missing);                \
        return handler(call);

#define FITS(number, handler, bytes, count) _Static_assert((count) <= ACCOUNTS_MAX, #handler);
INSTRUCTIONS(FITS)

u64 entrypoint(u8 *input) {
    struct call *call = (struct call *)HEAP;
    /* Else the compiler knows the address and writes it out in full at every use. */
    __asm__("" : "+r"(call));
    read_input(input, call);
    REQUIRE(call->data_bytes > 0, instruction_unknown);
    call->instruction = call->data[0];
    call->data += 1;
    call->data_bytes -= 1;
    switch (call->instruction) {
        INSTRUCTIONS(DISPATCH)
        default:
            return error_instruction_unknown;
    }
}
