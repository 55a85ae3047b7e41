/* What lies where, as docs/program.md has it: accounts, data of instructions, and the two things that meters sign. */
#ifndef LAYOUTS_H
#define LAYOUTS_H

#include "runtime.h"

#define LAYOUT_VERSION 1
#define MAGIC(a, b, c, d) ((u32)(a) | (u32)(b) << 8 | (u32)(c) << 16 | (u32)(d) << 24)

struct header {
    u32 tag;
    u8 version;
    u8 bump;
    u8 state;
    u8 kind;
    struct key address;
};

#define CONFIG_TAG MAGIC('C', 'W', 'C', 'F')
enum config_state { CONFIG_RUNNING = 1, CONFIG_PAUSED = 2 };

struct config {
    struct header header;
    u64 domain;
    struct key admin;
    struct key hub;
    struct key issuer;
    struct key validator;
    struct key grid_mint;
    u64 capacity_w_max;
    u32 register_step_wh_max;
    u8 zeros[100];
};
_Static_assert(sizeof(struct config) == 320, "docs/program.md");
_Static_assert(__builtin_offsetof(struct config, grid_mint) == 176, "docs/program.md");
_Static_assert(__builtin_offsetof(struct config, register_step_wh_max) == 216, "docs/program.md");

#define USER_TAG MAGIC('C', 'W', 'U', 'S')
enum user_state { USER_ACTIVE = 1 };
enum user_kind { USER_PROSUMER = 1, USER_CONSUMER = 2 };

struct user {
    struct header header;
    struct key wallet;
    i64 registered_at_unix_s;
    u32 meters;
    u32 meters_ever;
    u8 zeros[72];
};
_Static_assert(sizeof(struct user) == 160, "docs/program.md");
_Static_assert(__builtin_offsetof(struct user, meters_ever) == 84, "docs/program.md");

#define METER_TAG MAGIC('C', 'W', 'M', 'E')
enum meter_state { METER_ACTIVE = 1, METER_SUSPENDED = 2, METER_DEACTIVATED = 3 };
enum meter_kind { METER_SOLAR = 1, METER_WIND = 2, METER_BATTERY = 3, METER_GRID = 4 };
enum measurement { MEASURES_GENERATION_AND_GRID = 1, MEASURES_NET_ONLY = 2 };

struct meter {
    struct header header;
    struct key meter_id;
    struct key owner;
    struct key key;
    struct key grid_account;
    u32 key_epoch;
    u8 measurement;
    u8 zero;
    u16 flags;
    u64 capacity_w;
    u32 register_step_wh;
    u32 zero_2;
    u64 sequence;
    i64 closed_until_unix_s;
    u64 production_wh;
    u64 consumption_wh;
    u64 surplus_wh;
    u64 settled_wh;
    u64 written_off_production_wh;
    u64 written_off_surplus_wh;
    u64 base_production_wh;
    u64 base_surplus_wh;
    i64 registered_at_unix_s;
    u64 high_production_wh;
    i64 high_until_unix_s;
    u8 zeros[24];
};
_Static_assert(sizeof(struct meter) == 320, "docs/program.md");
_Static_assert(__builtin_offsetof(struct meter, sequence) == 192, "docs/program.md");
_Static_assert(__builtin_offsetof(struct meter, high_until_unix_s) == 288, "docs/program.md");

#define METER_KEY_TAG MAGIC('C', 'W', 'M', 'K')
enum meter_key_state { METER_KEY_KNOWN = 1 };

struct meter_key {
    struct header header;
    struct key key;
    struct key meter;
    u32 key_epoch;
    u32 zero;
    i64 registered_at_unix_s;
    u8 zeros[8];
};
_Static_assert(sizeof(struct meter_key) == 128, "docs/program.md");
_Static_assert(__builtin_offsetof(struct meter_key, registered_at_unix_s) == 112, "docs/program.md");

/* Data of the instructions, after the number. */

struct initialize_data {
    u64 domain;
    struct key hub;
    struct key issuer;
    struct key validator;
    u64 capacity_w_max;
    u32 register_step_wh_max;
} PACKED;

struct configure_data {
    struct key admin;
    struct key hub;
    struct key issuer;
    struct key validator;
    u64 capacity_w_max;
    u32 register_step_wh_max;
} PACKED;

struct register_user_data {
    u8 kind;
} PACKED;

struct register_meter_data {
    u64 capacity_w;
    u32 register_step_wh;
} PACKED;

struct business_id {
    u64 word[2];
} PACKED;

struct business_data {
    struct business_id business_id;
} PACKED;

struct write_off_data {
    struct business_id business_id;
    u64 production_wh;
    u64 surplus_wh;
} PACKED;

struct state_data {
    u8 state;
} PACKED;

/* What meters sign: docs/protocol.md. */

#define SEAL_MAGIC MAGIC('C', 'W', 'S', '1')

struct seal {
    u32 magic;
    u64 domain;
    u64 sequence;
    i64 sealed_at_unix_s;
    i64 closed_until_unix_s;
    u64 production_wh;
    u64 consumption_wh;
    u64 surplus_wh;
    struct key previous_seal_hash;
    struct key readings_hash;
} PACKED;
_Static_assert(sizeof(struct seal) == 124, "docs/protocol.md");

#define STATEMENT_MAGIC MAGIC('C', 'W', 'E', '1')
#define METER_ID_BYTES 32

struct statement {
    u32 magic;
    u64 domain;
    union {
        struct key key;
        u8 letter[METER_ID_BYTES];
    } meter_id;
    u8 kind;
    u8 measurement;
    u16 flags;
    u32 key_epoch;
    struct key owner;
    struct key key;
    u64 production_wh;
    u64 consumption_wh;
    u64 surplus_wh;
    i64 valid_from_unix_s;
    struct key last_seal_hash;
} PACKED;
_Static_assert(sizeof(struct statement) == 180, "docs/protocol.md");

#define EVENT_MAGIC MAGIC('C', 'W', 'E', 'V')

struct event {
    u32 magic;
    u8 version;
    u8 instruction;
    u16 zero;
    struct business_id business_id;
    u64 amount_units;
    u8 account[320];
} PACKED;
_Static_assert(__builtin_offsetof(struct event, account) == 32, "docs/program.md");
_Static_assert(sizeof(struct event) == EVENT_BYTES_MAX, "runtime.h");

#endif
