/* Every refusal: its number and its name, as docs/program.md lists them. A number never changes its meaning. */
#ifndef ERRORS_H
#define ERRORS_H

#define ERRORS(ERROR)                        \
    ERROR(6000, instruction_unknown)         \
    ERROR(6001, instruction_malformed)       \
    ERROR(6002, accounts_missing)            \
    ERROR(6003, account_not_ours)            \
    ERROR(6004, account_type)                \
    ERROR(6005, account_version)             \
    ERROR(6006, account_address)             \
    ERROR(6007, account_not_writable)        \
    ERROR(6008, signer_missing)              \
    ERROR(6009, not_the_hub)                 \
    ERROR(6010, not_the_admin)               \
    ERROR(6011, not_the_upgrade_authority)   \
    ERROR(6012, not_the_owner)               \
    ERROR(6013, program_differs)             \
    ERROR(6014, paused)                      \
    ERROR(6015, state_unchanged)             \
    ERROR(6016, already_exists)              \
    ERROR(6017, validator_is_issuer)         \
    ERROR(6018, mint_unacceptable)           \
    ERROR(6019, kind_unknown)                \
    ERROR(6020, user_not_active)             \
    ERROR(6021, wallet_differs)              \
    ERROR(6022, signature_missing)           \
    ERROR(6023, signature_malformed)         \
    ERROR(6024, key_differs)                 \
    ERROR(6025, statement_malformed)         \
    ERROR(6026, domain_differs)              \
    ERROR(6027, capacity_out_of_range)       \
    ERROR(6028, register_step_out_of_range)  \
    ERROR(6029, meter_not_active)            \
    ERROR(6030, meter_deactivated)           \
    ERROR(6031, seal_malformed)              \
    ERROR(6032, sequence_not_later)          \
    ERROR(6033, interval_not_later)          \
    ERROR(6034, from_the_future)             \
    ERROR(6035, counter_decreased)           \
    ERROR(6036, over_capacity)               \
    ERROR(6037, surplus_out_of_bounds)       \
    ERROR(6038, epoch_differs)               \
    ERROR(6039, counters_beyond)             \
    ERROR(6040, endorsement_missing)         \
    ERROR(6041, write_off_decreased)         \
    ERROR(6042, write_off_over_counter)      \
    ERROR(6043, write_off_gives)             \
    ERROR(6044, grid_account_differs)        \
    ERROR(6045, mint_differs)                \
    ERROR(6046, overflow)                    \
    ERROR(6047, state_unknown)               \
    ERROR(6048, message_differs)             \
    ERROR(6049, counters_differ)             \
    ERROR(6050, statement_too_old)

#define ENUMERATOR(number, name) error_##name = number,
enum error { ERRORS(ENUMERATOR) };
#undef ENUMERATOR

#endif
