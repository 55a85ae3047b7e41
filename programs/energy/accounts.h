/* Accounts of ours: how one is known, and how one is made. */
#ifndef ACCOUNTS_H
#define ACCOUNTS_H

#include "addresses.h"
#include "layouts.h"

enum access { READS, WRITES };

/* Only this program writes to what it owns, so a tag proves which instruction made the account, and the address kept in
   it was derived then. Comparing it now costs a tenth of what deriving it again would. */
OUT_OF_LINE result check_account(const struct call *call, const struct account *account, u32 tag, u64 bytes,
                                 enum access access) {
    const struct header *header = (const struct header *)account->data;
    REQUIRE(same_key(account->owner, call->program), account_not_ours);
    REQUIRE(account->data_bytes == bytes && header->tag == tag, account_type);
    REQUIRE(header->version == LAYOUT_VERSION, account_version);
    REQUIRE(same_key(&header->address, account->address), account_address);
    REQUIRE(access == READS || account->is_writable, account_not_writable);
    return OK;
}

INLINE result open_config(const struct call *call, const struct account *account, enum access access,
                          struct config **config) {
    *config = (struct config *)account->data;
    return check_account(call, account, CONFIG_TAG, sizeof(struct config), access);
}

INLINE result open_user(const struct call *call, const struct account *account, struct user **user) {
    *user = (struct user *)account->data;
    return check_account(call, account, USER_TAG, sizeof(struct user), WRITES);
}

INLINE result open_meter(const struct call *call, const struct account *account, struct meter **meter) {
    *meter = (struct meter *)account->data;
    return check_account(call, account, METER_TAG, sizeof(struct meter), WRITES);
}

/* What all that the hub does needs: our Config, the hub's signature, a program that runs. */
OUT_OF_LINE result open_config_for_hub(const struct call *call, const struct account *hub,
                                       const struct account *account, struct config **config) {
    TRY(open_config(call, account, READS, config));
    REQUIRE(hub->is_signer, signer_missing);
    REQUIRE(same_key(hub->address, &(*config)->hub), not_the_hub);
    REQUIRE((*config)->header.state == CONFIG_RUNNING, paused);
    return OK;
}

/* Seeds are the account's name on the chain for ever. */
#define CONFIG_WORD "config"
#define USER_WORD "user"
#define METER_WORD "meter"
#define METER_KEY_WORD "key"
#define WORD(text) (text), sizeof(text) - 1

/* What an account is to become, and what its address is derived from: a word and perhaps a key. */
struct new_account {
    const char *word;
    u64 word_bytes;
    const struct key *key;
    u64 bytes;
    u32 tag;
};

/* The first account of the instruction pays. */
static result create_account(const struct call *call, const struct account *system, struct account *account,
                             const struct new_account *new_account);

#endif
