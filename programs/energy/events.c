#include "events.h"

/* One field, because each field becomes a word of its own in the log line. */
static result emit(struct call *call, const struct account *account, const struct business_id *business_id,
                   u64 amount_units) {
    struct event *event = (struct event *)call->event;
    REQUIRE(account->data_bytes <= sizeof event->account, account_type);
    event->magic = EVENT_MAGIC;
    event->version = LAYOUT_VERSION;
    event->instruction = call->instruction;
    event->zero = 0;
    event->business_id = business_id ? *business_id : (struct business_id){{0, 0}};
    event->amount_units = amount_units;
    sol_memcpy_(event->account, account->data, account->data_bytes);
    struct log_field field = {event, __builtin_offsetof(struct event, account) + account->data_bytes};
    sol_log_data(&field, 1);
    return OK;
}
