#include "signatures.h"

#define THIS_INSTRUCTION 0xffff
#define SIGNATURE_BYTES 64

struct ed25519_header {
    u8 signatures;
    u8 padding;
    u16 signature_offset;
    u16 signature_instruction;
    u16 key_offset;
    u16 key_instruction;
    u16 message_offset;
    u16 message_bytes;
    u16 message_instruction;
} PACKED;

enum {
    KEY_OFFSET = sizeof(struct ed25519_header),
    SIGNATURE_OFFSET = KEY_OFFSET + sizeof(struct key),
    MESSAGE_OFFSET = SIGNATURE_OFFSET + SIGNATURE_BYTES,
};

struct sysvar_program {
    struct key program;
    u16 data_bytes;
    u8 data[];
} PACKED;

#define ACCOUNT_REFERENCE_BYTES 33

INLINE u64 u16_at(const u8 *bytes, u64 offset) {
    return bytes[offset] | (u64)bytes[offset + 1] << 8;
}

/* What was signed in the instruction `back` places before this one. Its parts must lie where every builder puts them,
   key, signature and message, with nothing between or after: then there is no offset to play tricks with, and what
   the Ed25519 program verified is what is read here. */
static result signed_before(const struct account *sysvar, u64 back, struct signed_message *message) {
    REQUIRE(same_key(sysvar->address, &INSTRUCTIONS_SYSVAR), program_differs);
    const u8 *data = sysvar->data;
    u64 end = sysvar->data_bytes - 2;
    u64 current = u16_at(data, end);
    REQUIRE(current >= back, signature_missing);
    u64 at = u16_at(data, 2 + 2 * (current - back));
    at += 2 + ACCOUNT_REFERENCE_BYTES * u16_at(data, at);
    const struct sysvar_program *instruction = (const struct sysvar_program *)(data + at);
    REQUIRE(same_key(&instruction->program, &ED25519_PROGRAM), signature_missing);
    REQUIRE(instruction->data_bytes >= MESSAGE_OFFSET, signature_malformed);
    const struct ed25519_header *header = (const struct ed25519_header *)instruction->data;
    REQUIRE(header->signatures == 1 && header->signature_instruction == THIS_INSTRUCTION &&
                header->key_instruction == THIS_INSTRUCTION && header->message_instruction == THIS_INSTRUCTION &&
                header->key_offset == KEY_OFFSET && header->signature_offset == SIGNATURE_OFFSET &&
                header->message_offset == MESSAGE_OFFSET &&
                header->message_bytes == instruction->data_bytes - MESSAGE_OFFSET,
            signature_malformed);
    message->key = (const struct key *)(instruction->data + KEY_OFFSET);
    message->bytes = instruction->data + MESSAGE_OFFSET;
    message->length = header->message_bytes;
    return OK;
}

static const struct key NO_HASH = {{0, 0, 0, 0}};

INLINE int is_time(i64 unix_s) {
    return unix_s >= TIME_MIN_UNIX_S && unix_s <= TIME_MAX_UNIX_S;
}

INLINE int are_counters(u64 production_wh, u64 consumption_wh, u64 surplus_wh) {
    return production_wh <= ENERGY_WH_MAX && consumption_wh <= ENERGY_WH_MAX && surplus_wh <= production_wh;
}

static result check_seal(const struct signed_message *message, u64 domain, const struct seal **given) {
    const struct seal *seal = (const struct seal *)message->bytes;
    REQUIRE(message->length == sizeof *seal && seal->magic == SEAL_MAGIC, seal_malformed);
    REQUIRE(seal->sequence >= 1 && seal->sequence <= SEQUENCE_MAX, seal_malformed);
    REQUIRE((seal->sequence == 1) == same_key(&seal->previous_seal_hash, &NO_HASH), seal_malformed);
    REQUIRE(is_time(seal->sealed_at_unix_s) && is_time(seal->closed_until_unix_s), seal_malformed);
    REQUIRE(seal->closed_until_unix_s <= seal->sealed_at_unix_s, seal_malformed);
    REQUIRE((u64)seal->closed_until_unix_s % SETTLEMENT_INTERVAL_S == 0, seal_malformed);
    REQUIRE(are_counters(seal->production_wh, seal->consumption_wh, seal->surplus_wh), seal_malformed);
    REQUIRE(seal->domain == domain, domain_differs);
    *given = seal;
    return OK;
}

INLINE int is_letter_or_digit(u8 letter) {
    return (letter >= 'a' && letter <= 'z') || (letter >= '0' && letter <= '9');
}

/* One name has one spelling: otherwise one meter could have two accounts. */
static int is_meter_id(const u8 *letter) {
    u64 length = 0;
    while (length < METER_ID_BYTES && letter[length] != 0) {
        if (!is_letter_or_digit(letter[length]) && letter[length] != '-') {
            return 0;
        }
        length++;
    }
    for (u64 i = length; i < METER_ID_BYTES; i++) {
        if (letter[i] != 0) {
            return 0;
        }
    }
    int is_the_hubs = letter[0] == 'h' && letter[1] == 'u' && letter[2] == 'b' && letter[3] == '-';
    return length > 0 && letter[0] != '-' && letter[length - 1] != '-' && !is_the_hubs;
}

static result check_statement(const struct signed_message *message, u64 domain, const struct statement **given) {
    const struct statement *statement = (const struct statement *)message->bytes;
    REQUIRE(message->length == sizeof *statement && statement->magic == STATEMENT_MAGIC, statement_malformed);
    REQUIRE(is_meter_id(statement->meter_id.letter), statement_malformed);
    REQUIRE(statement->kind >= METER_SOLAR && statement->kind <= METER_GRID, statement_malformed);
    REQUIRE(statement->measurement == MEASURES_GENERATION_AND_GRID || statement->measurement == MEASURES_NET_ONLY,
            statement_malformed);
    REQUIRE(statement->key_epoch >= 1 && statement->key_epoch <= KEY_EPOCH_MAX, statement_malformed);
    REQUIRE(statement->flags <= FLAGS_ALL, statement_malformed);
    REQUIRE(statement->key_epoch > 1 || !(statement->flags & FLAG_METER_REPLACED), statement_malformed);
    REQUIRE(are_counters(statement->production_wh, statement->consumption_wh, statement->surplus_wh),
            statement_malformed);
    REQUIRE(is_time(statement->valid_from_unix_s), statement_malformed);
    REQUIRE(statement->domain == domain, domain_differs);
    REQUIRE(same_key(message->key, &statement->key), key_differs);
    *given = statement;
    return OK;
}
