// @solana/kit and @solana-program/system, unmodified, drive a cluster: `node kit.mjs PACKAGES SCENARIO HTTP_URL WS_URL`.
// Prints what they were told as JSON lines, [name, value]; the Python test beside it judges.

import { createRequire } from 'node:module';
import { join } from 'node:path';

const [, , packages, scenario, url, webSocketUrl] = process.argv;
const require = createRequire(join(packages, 'package.json'));
const kit = require('@solana/kit');
const system = require('@solana-program/system');

const rpc = kit.createSolanaRpc(url);
const rpcSubscriptions = kit.createSolanaRpcSubscriptions_UNSTABLE(webSocketUrl);
const MEMO = kit.address('MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr');
const TOKEN_2022 = kit.address('TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb');
const UPGRADEABLE_LOADER = kit.address('BPFLoaderUpgradeab1e11111111111111111111111');
const LOOKUP_TABLES = kit.address('AddressLookupTab1e1111111111111111111111111');
const RENT = kit.address('SysvarRent111111111111111111111111111111111');
const CLOCK = kit.address('SysvarC1ock11111111111111111111111111111111');
const SOL = 1_000_000_000n;
const DEADLINE_MS = 20_000;
const { READONLY, READONLY_SIGNER, WRITABLE, WRITABLE_SIGNER } = kit.AccountRole;
const confirmed = { commitment: 'confirmed' };

const say = (name, value) => console.log(JSON.stringify([name, value ?? null], plain));
const plain = (_, value) => (typeof value === 'bigint' ? value.toString() : value);

const airdrop = kit.airdropFactory({ rpc, rpcSubscriptions });
const sendAndConfirm = kit.sendAndConfirmTransactionFactory({ rpc, rpcSubscriptions });

async function funded(sol = 10n) {
    const signer = await kit.generateKeyPairSigner();
    await airdrop({ ...confirmed, lamports: kit.lamports(sol * SOL), recipientAddress: signer.address });
    return signer;
}

const memo = (text) => ({ programAddress: MEMO, data: new TextEncoder().encode(text) });
const pay = (source, destination, amount) => system.getTransferSolInstruction({ source, destination, amount });
const account = (address, role, signer) => ({ address, role, ...(signer ? { signer } : {}) });
const lapsing = async (message) =>
    kit.setTransactionMessageLifetimeUsingBlockhash((await rpc.getLatestBlockhash(confirmed).send()).value, message);

const messageOf = (payer, instructions, version = 0) =>
    kit.pipe(
        kit.createTransactionMessage({ version }),
        (message) => kit.setTransactionMessageFeePayerSigner(payer, message),
        (message) => kit.appendTransactionMessageInstructions(instructions, message),
    );

async function signed(payer, instructions, version = 0) {
    return kit.signTransactionMessageWithSigners(await lapsing(messageOf(payer, instructions, version)));
}

async function send(payer, ...instructions) {
    const transaction = await signed(payer, instructions);
    await sendAndConfirm(transaction, confirmed);
    return kit.getSignatureFromTransaction(transaction);
}

const broadcast = (transaction, options = {}) =>
    rpc.sendTransaction(kit.getBase64EncodedWireTransaction(transaction), { encoding: 'base64', ...options }).send();

async function refusal(promise) {
    try {
        return { accepted: await promise };
    } catch (fault) {
        const name = Object.keys(kit).find(
            (each) => each.startsWith('SOLANA_ERROR__') && kit[each] === fault.context?.__code,
        );
        const cause =
            fault.cause &&
            Object.keys(kit).find(
                (each) => each.startsWith('SOLANA_ERROR__') && kit[each] === fault.cause.context?.__code,
            );
        return {
            solana: kit.isSolanaError(fault),
            name,
            cause,
            code: fault.cause?.context?.code,
            logs: fault.context?.logs,
            message: fault.message,
        };
    }
}

async function until(question, wanted) {
    for (const started = Date.now(); Date.now() - started < DEADLINE_MS;) {
        const answer = await question();
        if (wanted(answer)) return answer;
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error('it never came');
}

const slotAfter = (slot) =>
    until(
        () => rpc.getSlot(confirmed).send(),
        (now) => now > slot,
    );
const statusOf = async (signature) => (await rpc.getSignatureStatuses([signature]).send()).value[0];

// Money: airdrop, send, confirm, read back, and what is refused.
async function money() {
    say('version', await rpc.getVersion().send());
    say('health', await rpc.getHealth().send());
    say('genesis', await rpc.getGenesisHash().send());
    say('epoch', await rpc.getEpochInfo().send());
    const payer = await funded();
    const friend = (await kit.generateKeyPairSigner()).address;
    const balance = async (address) => (await rpc.getBalance(address, confirmed).send()).value;
    say('airdropped', await balance(payer.address));

    const transaction = await signed(payer, [pay(payer, friend, SOL), memo('from kit')]);
    const wire = kit.getBase64EncodedWireTransaction(transaction);
    const options = { encoding: 'base64', sigVerify: true, commitment: 'confirmed' };
    say('simulated', (await rpc.simulateTransaction(wire, options).send()).value);
    const estimate = kit.estimateResourceLimitsFactory({ rpc });
    say('estimated', await estimate(messageOf(payer, [pay(payer, friend, SOL), memo('from kit')])));
    await sendAndConfirm(transaction, confirmed);
    const signature = kit.getSignatureFromTransaction(transaction);
    say('signature', signature);
    say('status', await statusOf(signature));
    say('paid', await balance(friend));
    say('left', await balance(payer.address));
    say('resent', await refusal(broadcast(transaction)));
    say('resent_unchecked', await broadcast(transaction, { skipPreflight: true }));
    say('paid_after_resending', await balance(friend));

    const config = { maxSupportedTransactionVersion: 0, commitment: 'confirmed' };
    const found = await rpc.getTransaction(signature, { ...config, encoding: 'json' }).send();
    say('transaction', [found.version, found.meta.err, found.meta.fee, found.meta.logMessages]);
    const base64 = await rpc.getTransaction(signature, { ...config, encoding: 'base64' }).send();
    say('transaction_bytes', base64.transaction[0] === wire);
    const parsed = await rpc.getTransaction(signature, { ...config, encoding: 'jsonParsed' }).send();
    say(
        'transaction_parsed',
        parsed.transaction.message.instructions.map((each) => each.parsed),
    );
    say('transaction_accounts', parsed.transaction.message.accountKeys);
    say('people', [payer.address, friend]);
    const block = await rpc
        .getBlock(found.slot, { ...config, transactionDetails: 'signatures', rewards: false })
        .send();
    say('block', [
        block.signatures.includes(signature),
        block.parentSlot === found.slot - 1n,
        block.blockHeight === found.slot,
    ]);
    for (const text of ['two', 'three', 'four']) await send(payer, pay(payer, friend, 1n), memo(text));
    const history = await rpc.getSignaturesForAddress(friend, { commitment: 'confirmed' }).send();
    say(
        'history',
        history.map((each) => [each.memo, each.confirmationStatus !== 'processed']),
    );
    const [newest] = await rpc.getSignaturesForAddress(friend, { limit: 1, commitment: 'confirmed' }).send();
    const older = await rpc
        .getSignaturesForAddress(friend, { before: newest.signature, until: signature, commitment: 'confirmed' })
        .send();
    say(
        'page',
        older.map((each) => each.memo),
    );

    say('too_much', await refusal(send(payer, pay(payer, friend, 1000n * SOL))));
    const hasty = kit.setTransactionMessageComputeUnitLimit(
        400,
        await lapsing(messageOf(payer, [memo('x'.repeat(500))])),
    );
    say('too_long', await refusal(broadcast(await kit.signTransactionMessageWithSigners(hasty))));
    const urgent = kit.setTransactionMessageComputeUnitPrice(
        1_000_000n,
        kit.setTransactionMessageComputeUnitLimit(50_000, messageOf(payer, [memo('urgent')])),
    );
    const priced = await kit.signTransactionMessageWithSigners(await lapsing(urgent));
    await sendAndConfirm(priced, confirmed);
    say(
        'priced_fee',
        (await rpc.getTransaction(kit.getSignatureFromTransaction(priced), { ...config, encoding: 'json' }).send()).meta
            .fee,
    );
    const forged = { ...transaction, signatures: { [payer.address]: new Uint8Array(64).fill(1) } };
    say('forged', await refusal(broadcast(forged)));
    const nobody = (await kit.generateKeyPairSigner()).address;
    say('nobody', (await rpc.getAccountInfo(nobody, { encoding: 'base64' }).send()).value);
    const both = await kit.fetchEncodedAccounts(rpc, [friend, nobody], confirmed);
    say(
        'accounts',
        both.map((each) => [each.exists, each.lamports]),
    );
    say('rent', await rpc.getMinimumBalanceForRentExemption(165n).send());
    say(
        'fee',
        (await rpc.getFeeForMessage(Buffer.from(transaction.messageBytes).toString('base64'), confirmed).send()).value,
    );
}

// Tokens: a Token-2022 mint with extensions, an account, units in it, and questions about them.
async function tokens() {
    const payer = await funded();
    const mint = await kit.generateKeyPairSigner();
    const holder = await kit.generateKeyPairSigner();
    const bytes = (...parts) => new Uint8Array(Buffer.concat(parts.map((each) => Buffer.from(each))));
    const key = (address) => kit.getAddressEncoder().encode(address);
    const token = (data, ...accounts) => ({ programAddress: TOKEN_2022, accounts, data });
    const rentOf = (space) => rpc.getMinimumBalanceForRentExemption(space).send();
    const created = async (newAccount, space) =>
        system.getCreateAccountInstruction({
            payer,
            newAccount,
            space,
            lamports: await rentOf(space),
            programAddress: TOKEN_2022,
        });
    await send(
        payer,
        await created(mint, 165n + 1n + 4n + 32n),
        token(bytes([35], key(payer.address)), account(mint.address, WRITABLE)),
        token(bytes([20, 9], key(payer.address), [0]), account(mint.address, WRITABLE)),
    );
    await send(
        payer,
        await created(holder, 165n),
        token(bytes([18], key(payer.address)), account(holder.address, WRITABLE), account(mint.address, READONLY)),
        token(
            bytes([7], kit.getU64Encoder().encode(11n * SOL)),
            account(mint.address, WRITABLE),
            account(holder.address, WRITABLE),
            account(payer.address, READONLY_SIGNER, payer),
        ),
    );
    say('payer', payer.address);
    say('mint_address', mint.address);
    const [shownMint, shownHolder] = await kit.fetchJsonParsedAccounts(rpc, [mint.address, holder.address], confirmed);
    say('mint', shownMint.data);
    say('account', shownHolder.data);
    say('balance', (await rpc.getTokenAccountBalance(holder.address, confirmed).send()).value);
    say('supply', (await rpc.getTokenSupply(mint.address, confirmed).send()).value);
    const owned = await rpc
        .getTokenAccountsByOwner(payer.address, { mint: mint.address }, { encoding: 'base64', ...confirmed })
        .send();
    say(
        'owned',
        owned.value.map((each) => each.pubkey === holder.address),
    );
    const filters = [{ memcmp: { offset: 0n, bytes: mint.address, encoding: 'base58' } }, { dataSize: 165n }];
    const found = await rpc.getProgramAccounts(TOKEN_2022, { encoding: 'base64', filters, ...confirmed }).send();
    say(
        'filtered',
        found.map((each) => [each.pubkey === holder.address, each.account.space]),
    );
    const delegated = await rpc
        .getProgramAccounts(TOKEN_2022, {
            encoding: 'jsonParsed',
            filters: [{ dataSize: 202n }, { memcmp: { offset: 4n, bytes: payer.address, encoding: 'base58' } }],
            withContext: true,
            ...confirmed,
        })
        .send();
    say(
        'filtered_mints',
        delegated.value.map((each) => [each.pubkey === mint.address, each.account.data.parsed.type]),
    );
}

// Subscriptions: each kind, as an async iterator that is broken off when enough has been heard.
async function subscriptions() {
    const payer = await funded();
    const friend = (await kit.generateKeyPairSigner()).address;
    const stop = new AbortController();
    const listen = (request) => request.subscribe({ abortSignal: stop.signal });
    const take = async (stream, wanted) => {
        const heard = [];
        for await (const each of stream) {
            heard.push(each);
            if (wanted(each, heard)) return heard;
        }
        throw new Error('the stream ended');
    };
    const transaction = await signed(payer, [pay(payer, friend, SOL), memo('heard')]);
    const signature = kit.getSignatureFromTransaction(transaction);
    const ours = ({ value }) => value.signature === signature;
    const of = (commitment) => ({ commitment });
    const streams = {
        account: [
            rpcSubscriptions.accountNotifications(friend, { ...of('processed'), encoding: 'base64' }),
            () => true,
        ],
        account_finalized: [
            rpcSubscriptions.accountNotifications(friend, { ...of('finalized'), encoding: 'jsonParsed' }),
            () => true,
        ],
        logs: [rpcSubscriptions.logsNotifications('all', of('confirmed')), ours],
        logs_with_votes: [rpcSubscriptions.logsNotifications('allWithVotes', of('confirmed')), ours],
        mentioned: [rpcSubscriptions.logsNotifications({ mentions: [friend] }, of('processed')), () => true],
        signature: [rpcSubscriptions.signatureNotifications(signature, of('finalized')), () => true],
        signature_received: [
            rpcSubscriptions.signatureNotifications(signature, {
                ...of('confirmed'),
                enableReceivedNotification: true,
            }),
            ({ value }) => value !== 'receivedSignature',
        ],
        program: [
            rpcSubscriptions.programNotifications(kit.address('11111111111111111111111111111111'), {
                ...of('confirmed'),
                encoding: 'base64',
                filters: [{ dataSize: 0n }],
            }),
            ({ value }) => value.pubkey === friend,
        ],
        slots: [rpcSubscriptions.slotNotifications(), (_, heard) => heard.length === 3],
        roots: [rpcSubscriptions.rootNotifications(), (_, heard) => heard.length === 3],
        updates: [
            rpcSubscriptions.slotsUpdatesNotifications(),
            (_, heard) => new Set(heard.map((each) => each.type)).size === 4,
        ],
        blocks: [
            rpcSubscriptions.blockNotifications(
                { mentionsAccountOrProgram: friend },
                {
                    ...of('confirmed'),
                    encoding: 'base64',
                    transactionDetails: 'signatures',
                    showRewards: false,
                    maxSupportedTransactionVersion: 0,
                },
            ),
            () => true,
        ],
    };
    const heard = {};
    const all = await Promise.all(
        Object.entries(streams).map(async ([name, [request, wanted]]) => {
            const stream = await listen(request);
            return {
                done: take(stream, wanted).then((each) => {
                    heard[name] = each;
                }),
            };
        }),
    );
    await broadcast(transaction);
    await Promise.all(all.map(({ done }) => done));
    const { slot } = await statusOf(signature);
    const values = (name) => heard[name].map((each) => each.value);
    say(
        'slot_is_that_of_the_transaction',
        ['account', 'account_finalized', 'mentioned', 'signature', 'blocks'].map(
            (name) => heard[name].at(-1).context.slot === slot,
        ),
    );
    say(
        'account',
        values('account').map((each) => each.lamports),
    );
    say(
        'account_finalized',
        values('account_finalized').map((each) => each.lamports),
    );
    say('logs', values('logs').at(-1).logs);
    say('logs_with_votes', values('logs_with_votes').at(-1).err);
    say(
        'mentioned',
        values('mentioned').map((each) => each.signature === signature),
    );
    say('signature', values('signature'));
    say('signature_received', values('signature_received'));
    say('program', values('program').at(-1).account.lamports);
    say(
        'slots',
        heard.slots.map((each) => each.slot > each.parent && each.root < each.slot),
    );
    say(
        'roots',
        heard.roots.every((each, number) => number === 0 || each > heard.roots[number - 1]),
    );
    say('updates', [...new Set(heard.updates.map((each) => each.type))].sort());
    say(
        'blocks',
        values('blocks').map((each) => [each.slot === slot, each.block.signatures.includes(signature)]),
    );
    const late = await listen(rpcSubscriptions.signatureNotifications(signature, of('confirmed')));
    say(
        'already_confirmed',
        (await take(late, () => true)).map((each) => each.value),
    );
    stop.abort();
    const mistaken = rpcSubscriptions.accountNotifications('not an address', of('confirmed'));
    say('mistaken', await refusal(mistaken.subscribe({ abortSignal: AbortSignal.timeout(DEADLINE_MS) })));
}

// A lookup table made, extended and used; a durable nonce, confirmed by kit's own strategy.
async function tables_and_nonces() {
    const payer = await funded();
    const many = await Promise.all(Array.from({ length: 20 }, async () => (await kit.generateKeyPairSigner()).address));
    const recent = await rpc.getSlot({ commitment: 'finalized' }).send();
    const u64 = kit.getU64Encoder();
    const seeds = [kit.getAddressEncoder().encode(payer.address), u64.encode(recent)];
    const [table, bump] = await kit.getProgramDerivedAddress({ programAddress: LOOKUP_TABLES, seeds });
    const systemProgram = account(system.SYSTEM_PROGRAM_ADDRESS, READONLY);
    const made = {
        programAddress: LOOKUP_TABLES,
        data: new Uint8Array([0, 0, 0, 0, ...u64.encode(recent), bump]),
        accounts: [
            account(table, WRITABLE),
            account(payer.address, READONLY_SIGNER, payer),
            account(payer.address, WRITABLE_SIGNER, payer),
            systemProgram,
        ],
    };
    const keys = many.flatMap((each) => [...kit.getAddressEncoder().encode(each)]);
    const extended = {
        ...made,
        data: new Uint8Array([2, 0, 0, 0, ...u64.encode(BigInt(many.length)), ...keys]),
    };
    const signature = await send(payer, made, extended);
    const { slot } = await statusOf(signature);
    await slotAfter(slot);
    const tables = await kit.fetchAddressesForLookupTables([table], rpc, confirmed);
    say(
        'table',
        tables[table].every((each, number) => each === many[number]),
    );
    const message = await lapsing(
        messageOf(
            payer,
            many.map((each) => pay(payer, each, SOL / 100n)),
        ),
    );
    const transaction = await kit.signTransactionMessageWithSigners(
        kit.compressTransactionMessageUsingAddressLookupTables(message, tables),
    );
    say('v0_bytes', Buffer.from(kit.getBase64EncodedWireTransaction(transaction), 'base64').length);
    await sendAndConfirm(transaction, confirmed);
    const paid = await kit.fetchEncodedAccounts(rpc, many, confirmed);
    say(
        'v0_paid',
        paid.every((each) => each.exists && each.lamports === SOL / 100n),
    );

    const nonce = await kit.generateKeyPairSigner();
    const space = BigInt(system.getNonceSize());
    const lamports = await rpc.getMinimumBalanceForRentExemption(space).send();
    const born = await send(
        payer,
        system.getCreateAccountInstruction({
            payer,
            newAccount: nonce,
            space,
            lamports,
            programAddress: system.SYSTEM_PROGRAM_ADDRESS,
        }),
        system.getInitializeNonceAccountInstruction({ nonceAccount: nonce.address, nonceAuthority: payer.address }),
    );
    await slotAfter((await statusOf(born)).slot + 1n);
    const read = async () => (await system.fetchNonce(rpc, nonce.address, confirmed)).data;
    const value = (await read()).blockhash;
    say('nonce_authority', (await read()).authority === payer.address);
    const durable = (value, ...instructions) =>
        kit.signTransactionMessageWithSigners(
            kit.setTransactionMessageLifetimeUsingDurableNonce(
                { nonce: value, nonceAccountAddress: nonce.address, nonceAuthorityAddress: payer.address },
                messageOf(payer, instructions),
            ),
        );
    const kept = await durable(value, memo('kept'));
    await kit.sendAndConfirmDurableNonceTransactionFactory({ rpc, rpcSubscriptions })(kept, confirmed);
    say('nonce_advanced', (await read()).blockhash !== value);
    await slotAfter((await statusOf(kit.getSignatureFromTransaction(kept))).slot + 1n);
    const again = kit.sendAndConfirmDurableNonceTransactionFactory({ rpc, rpcSubscriptions });
    say('nonce_used_twice', await refusal(again(await durable(value, memo('other')), confirmed)));
}

// A program put on the chain through the upgradeable loader: the cluster's own memo program, under another address.
async function programs() {
    const payer = await funded(100n);
    const [buffer, program] = [await kit.generateKeyPairSigner(), await kit.generateKeyPairSigner()];
    const elf = (await kit.fetchEncodedAccount(rpc, MEMO)).data;
    const [programData] = await kit.getProgramDerivedAddress({
        programAddress: UPGRADEABLE_LOADER,
        seeds: [kit.getAddressEncoder().encode(program.address)],
    });
    const load = (accounts, ...parts) => ({
        programAddress: UPGRADEABLE_LOADER,
        accounts,
        data: new Uint8Array(parts.flatMap((each) => [...each])),
    });
    const u32 = (value) => kit.getU32Encoder().encode(value);
    const u64 = (value) => kit.getU64Encoder().encode(value);
    const authority = account(payer.address, READONLY_SIGNER, payer);
    const created = async (newAccount, space) =>
        system.getCreateAccountInstruction({
            payer,
            newAccount,
            space,
            lamports: await rpc.getMinimumBalanceForRentExemption(BigInt(space)).send(),
            programAddress: UPGRADEABLE_LOADER,
        });
    await send(
        payer,
        await created(buffer, elf.length + 37),
        load([account(buffer.address, WRITABLE), account(payer.address, READONLY)], u32(0)),
    );
    const writes = [];
    for (let offset = 0; offset < elf.length; offset += 900) {
        const part = elf.slice(offset, offset + 900);
        writes.push(load([account(buffer.address, WRITABLE), authority], u32(1), u32(offset), u64(part.length), part));
    }
    const sent = await Promise.all(
        writes.map(async (each) => broadcast(await signed(payer, [each]), { skipPreflight: true })),
    );
    const statuses = await until(
        async () => (await rpc.getSignatureStatuses(sent).send()).value,
        (all) => all.every((each) => each !== null && each.confirmationStatus !== 'processed'),
    );
    say('writes', [sent.length > 1, statuses.every((each) => each.err === null)]);
    const deployed = await send(
        payer,
        await created(program, 36),
        load(
            [
                account(payer.address, WRITABLE_SIGNER, payer),
                account(programData, WRITABLE),
                account(program.address, WRITABLE),
                account(buffer.address, WRITABLE),
                account(RENT, READONLY),
                account(CLOCK, READONLY),
                account(system.SYSTEM_PROGRAM_ADDRESS, READONLY),
                authority,
            ],
            u32(2),
            u64(elf.length),
        ),
    );
    const shown = await kit.fetchJsonParsedAccount(rpc, program.address, confirmed);
    say('program', [shown.executable, shown.data.programData === programData]);
    await slotAfter((await statusOf(deployed)).slot);
    const called = await send(payer, { programAddress: program.address, data: new TextEncoder().encode('by our own') });
    const found = await rpc
        .getTransaction(called, { maxSupportedTransactionVersion: 0, encoding: 'json', ...confirmed })
        .send();
    say(
        'logs',
        found.meta.logMessages.map((each) => each.replace(program.address, 'OURS')),
    );
}

// A transaction that no block took: its blockhash lapses, and only then kit says that it has.
async function expiry() {
    const payer = await funded();
    const transaction = await signed(payer, [memo('too late')]);
    const abortSignal = AbortSignal.timeout(DEADLINE_MS);
    await until(
        () => rpc.getBlockHeight(confirmed).send(),
        (height) => height > transaction.lifetimeConstraint.lastValidBlockHeight,
    );
    say('lost', await refusal(sendAndConfirm(transaction, { ...confirmed, skipPreflight: true, abortSignal })));
    say('sent_too_late', await refusal(broadcast(transaction)));
    say('landed', await statusOf(kit.getSignatureFromTransaction(transaction)));
}

const scenarios = { money, tokens, subscriptions, tables_and_nonces, programs, expiry };
await scenarios[scenario]();
process.exit(0);
